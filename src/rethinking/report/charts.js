"use strict";
// A number in few digits, such as 0.25, 32,000 or 1.5×10⁻⁷.
function short(value) {
  if (value === 0 || (Math.abs(value) < 1e6 && Math.abs(value) >= 1e-3)) return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  const [digits, power] = value.toExponential(2).split("e");
  const raised = [...String(Number(power))].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
  return Number(digits) === 1 ? `10${raised}` : `${Number(digits)}×10${raised}`;
}

// Draws every figure of the page with uPlot: the curves of `charts`, in the page's colours, with values at the cursor.
function drawFigures(charts, element) {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colourOf = (name) => style(`--curve-${name.colour}`);
  const narrow = matchMedia("(max-width: 40rem)");
  const MOST = 10; // values at the cursor, of the curves nearest to it
  const dashes = { dashed: [7, 4], dotted: [2, 3] };

  function key(name, look) {
    const made = element("i", { className: `key ${look}` });
    made.style.setProperty("--colour", name ? `var(--curve-${name.colour})` : "var(--soft)");
    return made;
  }

  function draw(figure) {
    const chart = charts[figure.dataset.chart];
    const box = figure.querySelector(".plot");
    box.classList.toggle("single", chart.panels.length === 1);
    box.classList.toggle("pairs", [2, 4].includes(chart.panels.length));
    for (const old of box.plots ?? []) old.destroy();
    const panels = chart.panels.map((one) => element("div", { className: "panel" }, element("p", { className: "title" }, one.title), element("p", { className: "along" }, one.x.label)));
    box.replaceChildren(...panels);
    box.plots = chart.panels.map((one, place) => drawPanel(panels[place], one, chart));
    const entries = chart.names.map((name) => element("li", {}, key(name, name.style), name.label));
    if (chart.reference) entries.push(element("li", {}, key(null, "dashed"), chart.reference));
    figure.querySelector(".legend").replaceChildren(...entries);
  }

  function drawPanel(box, one, chart) {
    const width = box.clientWidth, height = chart.panels.length === 1 ? (narrow.matches ? 280 : 360) : 230;
    const { tables, series, bands } = seriesOf(one, chart);
    const values = element("div", { className: "values", hidden: true });
    const snap = snapping(one);
    const plot = new uPlot({
      width, height, series, bands,
      padding: [8, Math.max(10, 4 * lastOf(one.x).length), 0, 0],
      scales: { x: scale(one.x), y: scale(one.y) },
      axes: [axis(one.x, { size: 28 }), axis(one.y, { size: widthOf })],
      legend: { show: false },
      cursor: {
        y: false, points: { show: false }, drag: { x: false, y: false },
        move: (u, left, top) => [left < 0 ? left : u.valToPos(snap(u.posToVal(left, "x")), "x"), top],
      },
      hooks: { setCursor: [(u) => tell(u, values, one, chart, snap)] },
    }, uPlot.join(tables), box);
    plot.over.addEventListener("mouseleave", () => { values.hidden = true; });
    box.append(values);
    return plot;
  }

  const scale = ({ min, max, log }) => ({ time: false, range: [min, max], ...(log ? { distr: 3, log: 10 } : {}) });

  const font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif";
  function axis(of, more) {
    const lines = { stroke: style("--grid"), width: 1 };
    return {
      font, gap: 4, space: 44, stroke: style("--soft"), grid: lines, ticks: { ...lines, size: 4 },
      splits: of.ticks || of.log ? () => of.ticks ?? powers(of.min, of.max) : undefined,
      filter: of.ticks ? apart : of.log ? (u, places) => places : undefined,
      values: (u, places) => places.map((place) => (place === null ? "" : written(place, of))),
      ...more,
    };
  }

  // The last label along an axis, half of which may stand beyond the end.
  function lastOf(of) {
    const places = of.ticks ?? (of.log ? powers(of.min, of.max) : [Math.floor(of.max)]);
    return places.length ? written(places.at(-1), of) : "";
  }

  // The places of a logarithmic axis: powers of ten, or 1, 2 and 5 of each where these are few.
  function powers(min, max) {
    const first = Math.floor(Math.log10(min)), last = Math.ceil(Math.log10(max)), step = Math.ceil((last - first) / 6);
    const factors = Math.log10(max / min) < 2.3 ? [1, 2, 5] : [1];
    const places = [];
    for (let power = first; power <= last; power += step) places.push(...factors.map((factor) => factor * 10 ** power));
    return places.filter((place) => place >= min && place <= max);
  }

  // Of places with a label each, those that leave room for one another.
  function apart(u, places) {
    let last = -Infinity;
    return places.map((place) => {
      const left = u.valToPos(place, "x");
      if (left - last < 46) return null;
      last = left;
      return place;
    });
  }

  const written = (value, of) => (of.percent ? `${Number((100 * value).toPrecision(4))}%` : short(value));
  const precise = (value, one) => (one.y.percent ? `${(100 * value).toFixed(2)}%` : `${short(value)}${one.unit ? ` ${one.unit}` : ""}`);

  const widthOf = (u, labels) => 14 + 7 * Math.max(2, ...(labels ?? []).map((label) => label.length));

  // The curves as uPlot takes them: each with its own places, its spread as a band, its hollow points on top.
  function seriesOf(one, chart) {
    const tables = [], series = [{}], bands = [], hollow = [];
    one.curves.forEach((curve, place) => {
      const name = chart.names[curve.name], stroke = colourOf(name);
      const size = 9 - 4 * (place / one.curves.length);
      const marked = chart.points || curve.y.filter((y) => y !== null).length === 1;
      if (name.style === "area") {
        tables.push([curve.x, curve.y]);
        series.push({ stroke: "transparent", fill: `${stroke}1c`, fillTo: () => one.y.min, points: { show: false } });
        return;
      }
      if (curve.spread) {
        const beyond = (sign) => curve.y.map((y, index) => (y === null ? null : Math.max(y + sign * curve.spread[index], one.y.log ? one.y.min : -Infinity)));
        tables.push([curve.x, beyond(1), beyond(-1)]);
        bands.push({ series: [series.length, series.length + 1], fill: `${stroke}2e` });
        series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      }
      tables.push([curve.x, curve.y]);
      series.push({
        stroke: curve.reference ? `${stroke}cc` : stroke, width: curve.reference ? 1.25 : 1.75,
        dash: curve.reference ? dashes.dashed : dashes[name.style],
        points: { show: marked && !curve.reference, size, fill: stroke, width: 1.5 },
      });
      if (marked && curve.hollow) hollow.push([curve, stroke, size]);
    });
    for (const [curve, stroke, size] of hollow) {
      tables.push([curve.hollow.map((index) => curve.x[index]), curve.hollow.map((index) => curve.y[index])]);
      series.push({ paths: () => null, stroke, points: { show: true, size, stroke, fill: style("--back"), width: 1.5 } });
    }
    return { tables, series, bands };
  }

  // The nearest place on the axis at which one of our curves has a value.
  function snapping(one) {
    const own = one.curves.some((curve) => !curve.reference) ? one.curves.filter((curve) => !curve.reference) : one.curves;
    const places = [...new Set(own.flatMap((curve) => curve.x.filter((_, index) => curve.y[index] !== null)))];
    const at = one.x.log ? Math.log : (place) => place;
    return (x) => places.reduce((best, place) => (Math.abs(at(place) - at(x)) < Math.abs(at(best) - at(x)) ? place : best), places[0]);
  }

  // The values at the cursor, in a box on the side where the cursor is not.
  function tell(u, values, one, chart, snap) {
    if (u.cursor.left < 0) {
      values.hidden = true;
      return;
    }
    const x = snap(u.posToVal(u.cursor.left, "x")), near = Math.abs(u.posToVal(6, "x") - u.posToVal(0, "x"));
    const found = one.curves.filter((curve) => !curve.reference && (curve.y[curve.x.indexOf(x)] ?? null) !== null);
    const away = (curve) => Math.abs(u.valToPos(curve.y[curve.x.indexOf(x)], "y") - u.cursor.top);
    const nearby = new Set([...found].sort((one, other) => away(one) - away(other)).slice(0, MOST));
    const rows = found.filter((curve) => nearby.has(curve)).map((curve) => {
      const index = curve.x.indexOf(x), name = chart.names[curve.name];
      const texts = [precise(curve.y[index], one) + (curve.spread?.[index] ? ` ± ${precise(curve.spread[index], one)}` : "")];
      if (chart.reference) {
        const beside = one.curves.find((other) => other.reference && other.name === curve.name);
        const there = beside ? nearest(beside.x, x, near) : -1;
        texts.push(there < 0 ? "" : precise(beside.y[there], one));
      }
      const label = curve.run ? `${name.label}, ${curve.run}` : name.label;
      return element("tr", {}, element("th", { scope: "row" }, key(name, name.style), label), ...texts.map((text) => element("td", {}, text)));
    });
    if (found.length > MOST) rows.push(element("tr", {}, element("td", { colSpan: 3 }, `and ${found.length - MOST} more`)));
    const heads = chart.reference ? ["", "ours", chart.reference.split(",")[0]].map((text) => element("th", { scope: "col" }, text)) : [];
    const caption = element("caption", {}, `${one.x.label} ${short(x)}`);
    values.hidden = rows.length === 0;
    values.replaceChildren(element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)));
    const right = u.cursor.left < u.over.clientWidth / 2, edge = u.over.offsetLeft + u.cursor.left;
    values.style.top = `${u.over.getBoundingClientRect().top - u.root.parentElement.getBoundingClientRect().top + 6}px`;
    const room = u.root.parentElement.clientWidth - values.offsetWidth;
    values.style.left = `${Math.max(0, Math.min(room, right ? edge + 12 : edge - 12 - values.offsetWidth))}px`;
  }

  function nearest(places, x, near) {
    let best = -1;
    places.forEach((place, index) => {
      if (Math.abs(place - x) <= near && (best < 0 || Math.abs(place - x) < Math.abs(places[best] - x))) best = index;
    });
    return best;
  }

  const drawAll = () => document.querySelectorAll("figure[data-chart]").forEach(draw);
  let drawn = 0;
  function redraw() {
    if (document.documentElement.clientWidth === drawn) return;
    drawn = document.documentElement.clientWidth;
    drawAll();
  }
  redraw();
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  for (const [event, printed] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      document.documentElement.classList.toggle("printed", printed);
      drawAll();
    });
  }
}

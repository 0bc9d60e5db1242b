"use strict";
// The page's behaviour: addresses of numbers, the panel of a number, copying, folding, contents and figures.
(() => {
  const data = JSON.parse(document.getElementById("the-data").textContent);
  const panel = document.getElementById("the-panel");
  const nav = document.getElementById("the-contents");
  const narrow = matchMedia("(max-width: 40rem)");

  // An element with properties, `data-` and `aria-` attributes among them, and children; text stays text.
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // Numbers and their addresses

  const isNumber = (found) => found !== null && found.matches("button.number");
  function named(hash) {
    try {
      return document.getElementById(decodeURIComponent(hash.slice(1)));
    } catch { // an address that somebody has cut
      return null;
    }
  }

  function show(number) {
    document.querySelector(".number.marked")?.classList.remove("marked");
    number.classList.add("marked");
    const wide = number.closest(".wide");
    if (number.closest("tr").classList.contains("more")) unfold(wide, true);
    number.scrollIntoView({ block: narrow.matches ? "start" : "center", inline: "center", behavior: "instant" });
    open(number);
  }

  function follow(hash) {
    const found = hash.length > 1 ? named(hash) : null;
    if (isNumber(found)) show(found);
  }

  let opener = null;
  function open(number) {
    opener = number;
    document.getElementById("the-panel-title").replaceChildren(...titleOf(number));
    document.getElementById("the-panel-content").replaceChildren(...contentOf(number));
    const hidden = number.getBoundingClientRect().right > innerWidth - 34 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    panel.classList.toggle("left", hidden);
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
  }

  panel.addEventListener("close", () => opener.focus({ preventScroll: true }));
  panel.addEventListener("click", (event) => {
    if (event.target === panel || event.target.matches(".close")) panel.close();
  });

  // What the table says about a number: its column, its row, and what stands beside it

  function headingsOf(cell) {
    const [first, second] = cell.closest("table").tHead.rows;
    let left = 0, under = 0;
    for (const heading of first.cells) {
      if (cell.cellIndex < left + heading.colSpan) {
        const names = heading.scope === "colgroup" ? [...second.cells].slice(under, under + heading.colSpan) : [];
        return [heading.textContent, names.map((name) => name.textContent)];
      }
      left += heading.colSpan;
      if (heading.scope === "colgroup") under += heading.colSpan;
    }
  }

  function titleOf(number) {
    const [quantity] = headingsOf(number.closest("td"));
    return [`${number.closest("section").dataset.short}: ${quantity}`];
  }

  function contentOf(number) {
    const cell = number.closest("td"), row = cell.parentElement;
    const headings = [...cell.closest("table").tHead.rows[0].cells];
    const factors = [...row.cells].filter((one) => one.matches("th, .factor"));
    const words = factors.map((one) => `${headings[one.cellIndex].textContent} ${one.textContent}`);
    const said = [element("p", { className: "soft" }, words.join(" · "))];
    if (number.dataset.n) said.push(element("p", { className: "soft" }, `n = ${number.dataset.n}: ${cell.closest("section").dataset.of}`));
    const note = cell.querySelector("small");
    if (note) said.push(element("p", { className: "soft" }, note.textContent));
    const [, names] = headingsOf(cell), beside = [];
    for (let place = 1, next = cell.nextElementSibling; place < names.length; place++, next = next.nextElementSibling) {
      if (next.textContent) beside.push(`${names[place]} ${next.textContent}`);
    }
    if (beside.length) said.push(element("p", {}, beside.join(" · ")));
    const link = new URL(`#${encodeURIComponent(number.id)}`, location.href).href;
    const copy = element("button", { type: "button", className: "copy", "data-text": link, "data-copy": "" }, "Copy link to this number");
    const runs = data.groups[number.dataset.runs].map((place) => data.runs[place]);
    return [
      element("p", { className: "value" }, number.textContent),
      ...said,
      element("p", { className: "actions" }, copy),
      ...runs.map((run, place) => described(run, runs.length > 1, place === 0)),
    ];
  }

  function listed(facts) {
    const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
    const items = Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, text(value))]);
    return element("dl", {}, ...items);
  }

  function described(run, several, first) {
    const content = [
      element("p", { className: "soft" }, run.status),
      element("div", { className: "command" }, element("code", {}, run.command), element("button", { type: "button", className: "copy", "data-copy": "" }, "Copy")),
      listed(run.facts),
      element("details", {}, element("summary", {}, "Configuration"), listed(run.configuration)),
    ];
    if (several) return element("details", { className: "run", open: first }, element("summary", {}, run.name), ...content);
    return element("div", { className: "run" }, element("h3", {}, run.name), ...content);
  }

  // Copying: to the clipboard; where that is refused, the text is selected for the reader to copy

  async function copy(button) {
    const code = button.previousElementSibling;
    const text = button.dataset.text ?? code.textContent;
    const label = button.textContent;
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      said = code ? selectAndCopy(code) : label;
      if (!code) window.prompt("Copy this address", text);
    }
    button.textContent = said;
    document.getElementById("the-news").textContent = said;
    setTimeout(() => { button.textContent = label; }, 2000);
  }

  function selectAndCopy(code) {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy") ? "Copied" : "Selected";
  }

  // Tables: folding, and shadows where there is more to the side

  function unfold(wide, all) {
    const button = wide.querySelector(".unfold");
    if (button.getAttribute("aria-expanded") === String(all)) return;
    wide.classList.toggle("folded", !all);
    wide.classList.toggle("unfolded", all);
    button.setAttribute("aria-expanded", all);
    [button.textContent, button.dataset.less] = [button.dataset.less, button.textContent];
    if (!all) wide.querySelector(".scroller").scrollTop = 0;
    shade(wide);
  }

  function shade(wide) {
    const scroller = wide.querySelector(".scroller"), first = scroller.querySelector("tbody th");
    const left = scroller.scrollLeft, hidden = scroller.scrollWidth - scroller.clientWidth - left;
    wide.style.setProperty("--kept", `${first ? first.offsetWidth : 0}px`);
    wide.style.setProperty("--below", `${wide.offsetHeight - scroller.offsetHeight}px`);
    wide.classList.toggle("more-left", left > 1);
    wide.classList.toggle("more-right", hidden > 1);
  }

  for (const wide of document.querySelectorAll(".wide")) {
    const scroller = wide.querySelector(".scroller");
    scroller.addEventListener("scroll", () => shade(wide), { passive: true });
    new ResizeObserver(() => shade(wide)).observe(scroller);
  }

  // Clicks of all kinds

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button"), link = event.target.closest("a[href^='#']");
    if (isNumber(button)) {
      history.replaceState(null, "", `#${encodeURIComponent(button.id)}`);
      show(button);
    } else if (button?.matches(".copy")) {
      copy(button);
    } else if (button?.matches(".unfold")) {
      unfold(button.closest(".wide"), button.getAttribute("aria-expanded") === "false");
    } else if (button?.matches(".menu")) {
      menu(!nav.classList.contains("open"));
    } else if (link && isNumber(named(link.hash))) {
      event.preventDefault();
      history.pushState(null, "", link.hash);
      follow(link.hash);
    }
    if (link && nav.contains(link)) menu(false);
  });
  addEventListener("hashchange", () => follow(location.hash));

  // Contents: a menu on a narrow window, with the place of the reader

  function menu(shown) {
    nav.classList.toggle("open", shown);
    nav.querySelector(".menu").setAttribute("aria-expanded", shown);
  }
  nav.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && nav.classList.contains("open")) {
      menu(false);
      nav.querySelector(".menu").focus();
    }
  });

  const links = [...nav.querySelectorAll("a")];
  function whereabouts() {
    const sections = links.map((link) => named(link.hash));
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const here = passed.at(-1) ?? sections[0];
    for (const link of links) {
      if (named(link.hash) === here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    nav.querySelector(".menu").textContent = `Contents: ${nav.querySelector("[aria-current]")?.textContent ?? ""}`;
  }
  addEventListener("scroll", whereabouts, { passive: true });

  // Figures

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colourOf = (name) => style(`--curve-${name.colour}`);
  const dashes = { dashed: [7, 4], dotted: [2, 3] };

  function key(name, look) {
    const made = element("i", { className: `key ${look}` });
    made.style.setProperty("--colour", name ? `var(--curve-${name.colour})` : "var(--soft)");
    return made;
  }

  function draw(figure) {
    const chart = data.charts[figure.dataset.chart];
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
    const { tables, series, bands, curves } = seriesOf(one, chart);
    const values = element("div", { className: "values", hidden: true });
    const snap = snapping(one);
    const plot = new uPlot({
      width, height, series, bands,
      padding: [8, 10, 0, 0],
      scales: { x: scale(one.x), y: scale(one.y) },
      axes: [axis(one.x, { size: 28 }), axis(one.y, { size: widthOf(one) })],
      legend: { show: false },
      cursor: {
        y: false, points: { show: false }, drag: { x: false, y: false },
        move: (u, left, top) => [left < 0 ? left : u.valToPos(snap(u.posToVal(left, "x")), "x"), top],
      },
      hooks: { setCursor: [(u) => tell(u, values, one, chart, snap)] },
    }, curves.length ? uPlot.join(tables) : [[]], box);
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

  // A number in few digits, such as 0.25, 32,000 or 1.5×10⁻⁷.
  function short(value) {
    if (value === 0 || (Math.abs(value) < 1e6 && Math.abs(value) >= 1e-3)) return Number(value.toPrecision(4)).toLocaleString("en");
    const [digits, power] = value.toExponential(2).split("e");
    const raised = [...String(Number(power))].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
    return Number(digits) === 1 ? `10${raised}` : `${Number(digits)}×10${raised}`;
  }

  const written = (value, of) => (of.percent ? `${Number((100 * value).toPrecision(4))}%` : short(value));
  const precise = (value, one) => (one.percent ? `${(100 * value).toFixed(2)}%` : `${short(value)}${one.unit ? ` ${one.unit}` : ""}`);

  function widthOf(one) {
    one.y.percent = one.percent;
    return (u, labels) => 14 + 7 * Math.max(2, ...(labels ?? []).map((label) => label.length));
  }

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
    return { tables, series, bands, curves: one.curves };
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
    const rows = one.curves.filter((curve) => !curve.reference).flatMap((curve) => {
      const index = curve.x.indexOf(x), name = chart.names[curve.name];
      if (index < 0 || curve.y[index] === null) return [];
      const spread = curve.spread?.[index] ? ` ± ${precise(curve.spread[index], one)}` : "";
      const beside = one.curves.find((other) => other.reference && other.name === curve.name);
      const there = beside ? nearest(beside.x, x, near) : -1;
      const texts = [precise(curve.y[index], one) + spread, ...(chart.reference ? [there < 0 ? "" : precise(beside.y[there], one)] : [])];
      return [element("tr", {}, element("th", { scope: "row" }, key(name, name.style), name.label), ...texts.map((text) => element("td", {}, text)))];
    });
    const heads = chart.reference ? ["", "ours", chart.reference.split(",")[0]].map((text) => element("th", { scope: "col" }, text)) : [];
    const caption = element("caption", {}, `${one.x.label} ${short(x)}`);
    values.hidden = rows.length === 0;
    values.replaceChildren(element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows.slice(0, 12))));
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

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const drawAll = () => figures.forEach(draw);
  let drawn = 0;
  function redraw() {
    if (document.documentElement.clientWidth === drawn) return;
    drawn = document.documentElement.clientWidth;
    drawAll();
  }
  redraw();
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  whereabouts();
  follow(location.hash);
})();

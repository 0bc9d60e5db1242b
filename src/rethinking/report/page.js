"use strict";
// The behaviour of the page: addresses of numbers, the panel of a number, copying, folding and contents.
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

  function unmark() {
    document.querySelector(".number.marked")?.classList.remove("marked");
  }

  function show(number) {
    unmark();
    number.classList.add("marked");
    const wide = number.closest(".wide");
    if (number.closest("tr").classList.contains("more")) unfold(wide, true);
    number.scrollIntoView({ block: narrow.matches ? "start" : "center", inline: "center", behavior: "instant" });
    open(number);
  }

  function follow(hash) {
    const found = named(hash);
    if (isNumber(found)) return show(found);
    unmark();
    panel.close();
  }

  // Shows a number, with an entry of its own in the browser's history: Back leads to where the reader was.
  function visit(number) {
    if (named(location.hash) !== number) history.pushState(null, "", `#${encodeURIComponent(number.id)}`);
    show(number);
  }

  // The name of a number's button for a screen reader: its row, its quantity and the number.
  function nameOf(number) {
    const cell = number.closest("td"), headings = cell.closest("table").tHead.rows[0].cells;
    const factors = [...cell.parentElement.cells].filter((one) => one.matches("th, .factor"));
    const words = factors.map((one) => {
      const heading = headings[one.cellIndex].textContent, value = one.textContent;
      if (["yes", "no"].includes(value)) return value === "yes" ? heading : "";
      return /^[-\d.,]+$/.test(value) ? `${heading} ${value}` : value;
    });
    return `${[...words, headingsOf(cell)[0]].filter(Boolean).join(", ")}: ${number.textContent.trim()}`;
  }
  for (const number of document.querySelectorAll("button.number")) number.setAttribute("aria-label", nameOf(number));

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
    const copy = element("button", { type: "button", className: "copy", "data-text": link }, "Copy link to this number");
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
    const words = run.command.split(" ").flatMap((word) => [element("span", {}, word), " "]).slice(0, -1);
    const content = [
      element("p", { className: "soft" }, run.status),
      element("div", { className: "command" }, element("code", {}, ...words), element("button", { type: "button", className: "copy" }, "Copy")),
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
    const label = button.dataset.label ??= button.textContent;
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      said = code ? selectAndCopy(code) : label;
      if (!code) window.prompt("Copy this address", text);
    }
    button.textContent = said;
    announce(said);
    clearTimeout(Number(button.dataset.timer));
    button.dataset.timer = setTimeout(() => { button.textContent = label; }, 2000);
  }

  // Tells a screen reader, in the open panel where there is one. Text that stays the same is not read again.
  function announce(said) {
    const news = document.querySelector(panel.open ? "dialog > .unseen" : "body > .unseen");
    news.textContent = "";
    setTimeout(() => { news.textContent = said; }, 100);
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
      visit(button);
    } else if (button?.matches(".copy")) {
      copy(button);
    } else if (button?.matches(".unfold")) {
      unfold(button.closest(".wide"), button.getAttribute("aria-expanded") === "false");
    } else if (button?.matches(".menu")) {
      menu(!nav.classList.contains("open"));
    } else if (link && isNumber(named(link.hash)) && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)) {
      event.preventDefault();
      visit(named(link.hash));
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
    const sections = links.map((link) => named(link.hash)).filter((section) => section !== null);
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const here = passed.at(-1) ?? sections[0];
    for (const link of links) {
      if (named(link.hash) === here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    nav.querySelector(".menu").textContent = `Contents: ${nav.querySelector("[aria-current]")?.textContent ?? ""}`;
  }
  addEventListener("scroll", whereabouts, { passive: true });

  globalThis.drawFigures?.(data.charts, element); // before an address leads anywhere, since figures take their room
  whereabouts();
  follow(location.hash);
})();

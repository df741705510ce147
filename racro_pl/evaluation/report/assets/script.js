
"use strict";
(() => {
  const ROW = 58; // as in the style sheet
  const KEPT_CHUNKS = 12;
  const FILTERS = [
    ["", "all"], ["right", "✓ right"], ["wrong", "✗ wrong"], ["unextracted", "∅ no answer found"],
    ["unanswered", "? no response"], ["disagree", "≠ systems disagree"],
    ["gained", "↗ gained on the first system"], ["lost", "↘ lost against the first system"],
  ];
  const VERDICTS = {
    r: ["✓", "right"], w: ["✗", "wrong"], x: ["∅", "no answer found"], u: ["?", "no response"], "-": ["–", "not asked"],
  };
  const KEYS = ["filter", "system", "benchmark", "category", "q", "id"];
  const $ = (id) => document.getElementById(id);
  const { systems, benchmarks, questions, folder } = JSON.parse($("index").textContent);
  const chunks = new Map(); // number to {records} or {waiting: [callback]}
  const control = { filter: $("filter"), system: $("system"), benchmark: $("benchmark"), category: $("category"), q: $("q") };
  const state = Object.fromEntries(KEYS.map((key) => [key, ""]));
  let shown = []; // indices into questions
  let at = -1; // place in shown of the question on view

  // Data only ever enters the page here: as text nodes and properties, never as markup.
  function make(tag, properties, ...children) {
    const { className, ...attributes } = properties || {};
    const element = document.createElement(tag);
    if (className) element.className = className;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // ---- which questions

  const wrong = (v) => v === "w" || v === "x";
  const TESTS = {
    right: (v) => v === "r",
    wrong,
    unextracted: (v) => v === "x",
    unanswered: (v) => v === "u",
    disagree: (v, all) => (v === "r" && [...all].some(wrong)) || (wrong(v) && all.includes("r")),
    gained: (v, all) => v === "r" && wrong(all[0]),
    lost: (v, all) => wrong(v) && all[0] === "r",
  };

  function matches(question) {
    if (state.benchmark && benchmarks[question.b].name !== state.benchmark) return false;
    if (state.category && !question.c.includes(state.category)) return false;
    const verdicts = state.system === "" ? [...question.v] : [question.v[Number(state.system)]];
    const test = TESTS[state.filter];
    if (test ? !verdicts.some((v) => test(v, question.v)) : state.system !== "" && verdicts[0] === "-") return false;
    if (!state.q) return true;
    question.search ||= [question.i, question.t, ...question.a].join("\n").toLowerCase();
    return state.q.toLowerCase().split(/\s+/).every((word) => question.search.includes(word));
  }

  function select() {
    shown = [];
    questions.forEach((question, index) => { if (matches(question)) shown.push(index); });
    const total = `${questions.length.toLocaleString("en")} question${questions.length === 1 ? "" : "s"}`;
    $("count").textContent = shown.length === questions.length ? total : `${shown.length.toLocaleString("en")} of ${total}`;
    $("rows").style.height = `${shown.length * ROW}px`;
    const wanted = shown.findIndex((index) => key(questions[index]) === state.id);
    show(wanted < 0 ? 0 : wanted, wanted >= 0);
  }

  const key = (question) => `${benchmarks[question.b].name}/${question.i}`;

  // ---- the list: only the rows in sight exist

  function marks(verdicts) {
    const box = make("span", { className: "marks" });
    [...verdicts].forEach((v, index) => box.append(make("span", {
      className: `mark ${v === "-" ? "n" : v}`, title: `${systems[index].label}: ${VERDICTS[v][1]}`,
    }, VERDICTS[v][0])));
    return box;
  }

  function drawRows() {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    const rows = [];
    for (let place = first; place < last; place++) {
      const question = questions[shown[place]];
      const row = make("div", {
        className: "row", role: "option", id: `row-${place}`, "aria-selected": String(place === at),
        "aria-posinset": place + 1, "aria-setsize": shown.length,
      }, make("div", null, marks(question.v),
        make("span", { className: "id" }, benchmarks.length > 1 ? `${benchmarks[question.b].title} · ${question.i}` : question.i)),
      make("p", null, question.t));
      row.style.top = `${place * ROW}px`;
      row.addEventListener("click", () => show(place, true));
      rows.push(row);
    }
    if (!shown.length) rows.push(make("p", { className: "empty" }, questions.length ? "No question fits. Clear the filters to see all." : "This report has no questions."));
    $("rows").replaceChildren(...rows);
    if (at >= 0) list.setAttribute("aria-activedescendant", `row-${at}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function scrollToRow() {
    const list = $("list");
    if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
    else if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
  }

  // ---- the question on view

  function load(number, done) {
    const known = chunks.get(number);
    if (known && known.records) return done(known.records);
    if (known) return void known.waiting.push(done);
    chunks.set(number, { waiting: [done] });
    if (folder === null) return window.racroChunk(number, JSON.parse($(`chunk-${number}`).textContent));
    const script = document.createElement("script");
    script.src = `${folder}/chunk-${number}.js`;
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => {
      script.remove();
      chunks.delete(number);
      $("detail").replaceChildren(make("p", { className: "empty" },
        `${folder}/chunk-${number}.js is not there. Keep the folder ${folder} beside this page.`));
    });
    document.head.append(script);
  }

  window.racroChunk = (number, records) => {
    const waiting = chunks.get(number)?.waiting || [];
    chunks.delete(number); // to the end: the oldest goes first
    chunks.set(number, { records });
    for (const old of [...chunks.keys()].slice(0, Math.max(0, chunks.size - KEPT_CHUNKS))) {
      if (chunks.get(old).records) chunks.delete(old);
    }
    waiting.forEach((done) => done(records));
  };

  function show(place, chosen) {
    at = shown.length ? Math.min(Math.max(place, 0), shown.length - 1) : -1;
    scrollToRow();
    drawRows();
    if (at < 0) return $("detail").replaceChildren();
    const question = questions[shown[at]];
    state.id = chosen ? key(question) : "";
    writeHash();
    load(question.k, (records) => {
      if (at >= 0 && questions[shown[at]] === question) draw(question, records[question.o]);
    });
  }

  function block(title, text, extra) {
    return make("section", null, make("h3", null, title),
      make("div", { className: `text ${extra || ""}`, ...(text.length > 1500 ? { tabindex: 0 } : {}) }, text));
  }

  function picture(item, number, count) {
    if (item.problem) return make("p", { className: "empty" }, `No picture: ${item.problem}`);
    return make("img", {
      src: item.src, width: item.w, height: item.h, decoding: "async",
      className: Math.max(item.w, item.h) < 128 ? "tiny" : "", alt: `Image ${number + 1} of ${count} of the question`,
    });
  }

  function answer(item, verdict, system, index) {
    const [symbol, word] = VERDICTS[verdict];
    const card = make("section", { className: "answer" }, make("header", null,
      make("span", null, document.querySelectorAll(".key .dot")[index].cloneNode(true), system.label),
      make("span", { className: `badge ${verdict === "-" ? "n" : verdict}` }, `${symbol} ${word}`)));
    if (item === null || item.said === null) return card;
    card.append(make("p", { className: "found" }, make("span", null, "extracted: "),
      item.x === null ? make("span", null, "nothing") : make("code", null, item.x === "" ? "(empty)" : item.x)));
    if (item.thinking) {
      card.append(make("details", null, make("summary", null, `Thinking (${item.thinking.length.toLocaleString("en")} characters)`),
        make("div", { className: "text long", tabindex: 0 }, item.thinking)));
    }
    card.append(make("div", { className: "text long", ...(item.said.length > 1500 ? { tabindex: 0 } : {}) },
      item.said || "(nothing after the thinking)"));
    return card;
  }

  function draw(question, record) {
    const step = (text, offset, name) => {
      const button = make("button", { type: "button", title: name, "aria-label": name }, text);
      button.disabled = at + offset < 0 || at + offset >= shown.length;
      button.addEventListener("click", () => show(at + offset, true));
      return button;
    };
    const kinds = { caption: "Caption", tentative: "Tentative answer" };
    $("detail").replaceChildren(
      make("div", { className: "bar-top" },
        make("span", { className: "where" }, `${benchmarks[question.b].title} · ${question.i}`),
        make("span", null, `${(at + 1).toLocaleString("en")} / ${shown.length.toLocaleString("en")}`),
        step("←", -1, "previous question"), step("→", 1, "next question")),
      make("div", null, ...record.cats.map((text) => make("span", { className: "chip" }, text))),
      make("div", { className: "task" },
        make("div", { className: "pictures" }, ...record.pics.map((item, i) => picture(item, i, record.pics.length))),
        make("div", null, block("Question", record.text, "question long"), block("Gold answer", record.gold || "(empty)"))),
      make("div", { className: "pair" },
        ...record.seen.map((item) => block(`${kinds[item.kind]} · ${item.by}`, item.text || "(empty)", "long"))),
      make("h3", null, "Answers"),
      make("div", { className: "pair" },
        ...record.answers.map((item, i) => answer(item, question.v[i], systems[i], i))),
    );
    $("detail").scrollTop = 0;
  }

  // ---- state: the controls and the address say the same

  function options(element, pairs) {
    element.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
  }

  function fillCategories() {
    const only = benchmarks.length === 1 ? benchmarks[0].name : state.benchmark;
    const found = new Set();
    if (only) for (const question of questions) if (benchmarks[question.b].name === only) question.c.forEach((name) => found.add(name));
    options(control.category, [["", only ? "all" : "choose a benchmark first"], ...[...found].sort().map((name) => [name, name])]);
    control.category.disabled = !found.size;
    if (!found.has(state.category)) state.category = "";
  }

  function toControls() {
    for (const [name, element] of Object.entries(control)) {
      element.value = state[name];
      // What the address asks for may not exist here.
      if (element.value !== state[name]) state[name] = element.value = "";
    }
  }

  function writeHash() {
    const parameters = new URLSearchParams(KEYS.filter((name) => state[name]).map((name) => [name, state[name]]));
    const text = parameters.toString();
    // Section links (#scores) stay until something is chosen.
    if (text || location.hash.includes("=")) history.replaceState(null, "", `#${text}`);
  }

  function readHash(scroll) {
    if (!location.hash.includes("=")) return false;
    const parameters = new URLSearchParams(location.hash.slice(1));
    for (const name of KEYS) state[name] = parameters.get(name) || "";
    apply();
    if (scroll) $("gallery").scrollIntoView();
    return true;
  }

  function apply() {
    fillCategories();
    toControls();
    select();
  }

  options(control.filter, FILTERS.filter(([name]) => systems.length > 1 || !["disagree", "gained", "lost"].includes(name)));
  options(control.system, [["", "any system"], ...systems.map((system, index) => [String(index), system.label])]);
  options(control.benchmark, [["", "all"], ...benchmarks.map((benchmark) => [benchmark.name, benchmark.title])]);
  for (const [name, element] of Object.entries(control)) {
    element.addEventListener("input", () => { state[name] = element.value; apply(); });
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("reset", (event) => {
    event.preventDefault();
    for (const name of Object.keys(control)) state[name] = "";
    apply();
  });
  $("list").addEventListener("scroll", drawRows, { passive: true });
  window.addEventListener("resize", drawRows);
  window.addEventListener("hashchange", () => readHash(true));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    const inList = event.target === $("list");
    const move = { j: 1, k: -1, ...(inList ? { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity } : {}) }[event.key];
    if (typing) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "/") { event.preventDefault(); control.q.focus(); }
    if (move === undefined || !shown.length) return;
    event.preventDefault();
    show(at + move, true);
  });
  if (!readHash(true)) apply();
})();

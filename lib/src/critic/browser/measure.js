// Runs in a world of its own beside the page's: the page's scripts can change the document, but none of these functions.
// Every function gives plain data, capped, so that no page makes an answer large.
globalThis.hone = (() => {
  const MOST_ITEMS = 400;
  const MOST_TEXT = 300;
  const one = (id) => document.querySelector(`[data-testid="${id}"]`);
  const all = (id) => [...document.querySelectorAll(`[data-testid="${id}"]`)];
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const frame = () => Promise.race([new Promise((done) => requestAnimationFrame(done)), pause(100)]);

  // How far everything around an element is scrolled: what is scrolled out of sight can be scrolled back.
  const scrolled = (element) => {
    let [left, top] = [0, 0];
    for (let at = element.parentElement; at; at = at.parentElement) [left, top] = [left + at.scrollLeft, top + at.scrollTop];
    return [left, top];
  };
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    const [left, top] = scrolled(element);
    const inside = box.right + left > 0 && box.bottom + top > 0;
    return (
      box.width >= 1 && box.height >= 1 && inside &&
      element.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true })
    );
  };
  const main = () => one("stMain") || document.documentElement;
  const state = () => {
    const app = one("stApp");
    return {
      script: (app && app.getAttribute("data-test-script-state")) || "",
      connection: (app && app.getAttribute("data-test-connection-state")) || "",
      skeletons: all("stSkeleton").length + all("stAppSkeleton").length,
      stale: document.querySelectorAll('[data-stale="true"]').length,
    };
  };
  const quiet = (now) =>
    ["notRunning", "compilationError"].includes(now.script) && now.connection === "CONNECTED" &&
    now.skeletons === 0 && now.stale === 0;
  const size = () => {
    const root = one("stApp") || document.body;
    return root ? `${root.getElementsByTagName("*").length} ${main().scrollHeight}` : "";
  };

  // Something moves that soon stands still, such as a sidebar on its way out.
  const moving = () => document.getAnimations().some((animation) =>
    animation.playState === "running" && animation.effect && animation.effect.getComputedTiming().endTime < 2000);

  // Whether nothing is under way on the page, and a size that changes with what it shows.
  const rest = () => {
    const now = state();
    return { quiet: quiet(now) && !moving(), size: size(), state: now.script };
  };

  const words = (element) => {
    const own = element.innerText || element.textContent || "";
    const named = [element, ...element.querySelectorAll("[aria-label],[placeholder],[title],[alt]")]
      .slice(0, 12)
      .flatMap((e) => ["aria-label", "placeholder", "title", "alt"].map((name) => e.getAttribute(name) || ""));
    return [own, ...named].join(" ").replace(/\s+/g, " ").trim().slice(0, MOST_TEXT);
  };

  // Everything of the named test ids that has a size and is not hidden outright.
  function named(ids) {
    const wanted = new Set(ids);
    const found = [];
    for (const element of document.querySelectorAll("[data-testid]")) {
      if (found.length >= MOST_ITEMS) break;
      if (wanted.has(element.getAttribute("data-testid")) && seen(element)) found.push(element);
    }
    return found;
  }
  const contents = (ids) => named(ids).map((e) => ({ id: e.getAttribute("data-testid"), text: words(e) }));

  // The parts of elements that are inside of everything that cuts them off.
  const inside = (elements) => new Promise((done) => {
    if (!elements.length) return done(new Map());
    const observer = new IntersectionObserver((entries) => {
      observer.disconnect();
      done(new Map(entries.map((entry) => [entry.target, entry.intersectionRect])));
    });
    elements.forEach((element) => observer.observe(element));
  });
  const scrollers = (element) => {
    const found = [];
    for (let at = element.parentElement; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const [down, across] = [/auto|scroll/.test(style.overflowY), /auto|scroll/.test(style.overflowX)];
      if (down && at.scrollHeight > at.clientHeight + 1 || across && at.scrollWidth > at.clientWidth + 1) found.push(at);
    }
    return found;
  };
  // A quarter of what could be seen of it at once, and more than a line of pixels.
  const LEAST = 16;
  const enough = (element, part) => {
    const box = element.getBoundingClientRect();
    const room = scrollers(element).reduce(
      ([w, h], at) => [Math.min(w, at.clientWidth), Math.min(h, at.clientHeight)], [innerWidth, innerHeight]);
    const fits = (part, whole, most) => part >= Math.max(1, Math.min(whole, LEAST), Math.min(whole, most) / 4);
    return !!part && fits(part.width, Math.floor(box.width), room[0]) && fits(part.height, Math.floor(box.height), room[1]);
  };

  const solid = (style) => {
    // `rgb(1, 2, 3)`, `rgba(1, 2, 3, 0.4)` or `color(srgb 0.1 0.2 0.3 / 0.4)`.
    const [, see] = /(?:^rgba.*,|\/)\s*([\d.]+)\)$/.exec(style.backgroundColor) || [];
    return Number(style.opacity) > 0.9 && (Number(see ?? 1) > 0.9 || style.backgroundImage !== "none");
  };
  const drawn = (element, pseudo) => {
    const style = getComputedStyle(element, pseudo);
    return style.content !== "none" && style.content !== "normal" && solid(style);
  };
  // A dialog of Streamlit's, which stands beside the app, is closed by a click: what is below it is there.
  const isDialog = (element) => !!element && !element.closest('[data-testid="stApp"]');
  const belowDialog = (part) => [...document.querySelectorAll('[role="dialog"]')].filter(isDialog).some((dialog) => {
    const box = dialog.getBoundingClientRect();
    return box.left < part.right && part.left < box.right && box.top < part.bottom && part.top < box.bottom;
  });
  // Its panel and its backdrop stand around it.
  const holdsDialog = (element) => isDialog(element) && [...element.querySelectorAll('[role="dialog"]')].some(isDialog);
  const covers = (element) => {
    if (isDialog(element.closest('[role="dialog"]')) || holdsDialog(element)) return false;
    return ["IMG", "CANVAS", "VIDEO", "IFRAME", "OBJECT", "EMBED"].includes(element.tagName) || solid(getComputedStyle(element));
  };
  const covered = (element, x, y) => {
    for (const over of document.elementsFromPoint(x, y)) {
      if (over === element || element.contains(over)) return false;
      // Of what is around it only what is drawn before or after its content can lie above.
      if (over.contains(element)) {
        if (drawn(over, "::before") || drawn(over, "::after")) return true;
      } else if (covers(over)) return true;
    }
    return false;
  };
  const GRID = [0.1, 0.5, 0.9];
  // Nothing lies above a third of it or more.
  const open = (element, part) => {
    const points = GRID.flatMap((i) => GRID.map((j) => [part.left + i * part.width, part.top + j * part.height]));
    return 3 * points.filter(([x, y]) => !covered(element, x, y)).length >= points.length;
  };
  const clear = (element) => {
    let left = 1;
    for (let at = element; at; at = at.parentElement) left *= Number(getComputedStyle(at).opacity);
    return left >= 0.1;
  };

  // Times that something is scrolled to, each of which shows what lies near it too.
  const MOST_SCROLLS = 40;
  // Those of some elements that can be scrolled to and are not covered there.
  async function reached(elements) {
    const [left, shown, again] = [new Set(elements), new Set(), new Set()];
    for (let times = 0; left.size && times < MOST_SCROLLS; times++) {
      const [first] = left;
      const kept = scrollers(first).map((at) => [at, at.scrollLeft, at.scrollTop]);
      for (const [at] of kept) {
        const [own, of] = [first.getBoundingClientRect(), at.getBoundingClientRect()];
        // Below the page's own header.
        at.scrollTop += own.top - of.top - Math.min(80, at.clientHeight / 4);
        if (own.left < of.left || own.right > of.right) at.scrollLeft += own.left - of.left;
      }
      const parted = await inside([...left]);
      const now = reaching(() => [...left].filter((e) => enough(e, parted.get(e)) && open(e, parted.get(e))));
      for (const [at, x, y] of kept) [at.scrollLeft, at.scrollTop] = [x, y];
      now.forEach((element) => { left.delete(element); shown.add(element); });
      // A chat scrolls back to its end by itself, once: what was lost to that gets another turn.
      if (left.delete(first) && !again.has(first)) {
        again.add(first);
        left.add(first);
        await frame();
      }
    }
    return shown;
  }

  // Parts of an element that have to show something, where the screenshot can tell: itself, its name, its figure.
  const PARTS = '[data-testid="stWidgetLabel"],[data-testid="stMarkdownContainer"],[data-testid="stMetricValue"]';
  // What these show may come from addresses that are not there.
  const AWAY = ["stDeckGlJsonChart", "stVideo", "stAudio", "stException"];
  const parts = (element, part) => {
    const away = AWAY.includes(element.getAttribute("data-testid")) || element.matches("iframe[src]") ||
      element.querySelector("iframe[src]") || [...element.querySelectorAll("img")].some((image) => !image.naturalWidth);
    if (away || belowDialog(part)) return [];
    const named = [...element.querySelectorAll(PARTS)].slice(0, 6).filter((e) => seen(e) && (e.innerText || "").trim());
    const boxes = named.slice(0, 3).map((e) => e.getBoundingClientRect());
    return [part, ...boxes].map((box) => [box.left, box.top, box.width, box.height]);
  };

  // Everything is hit at a point while something is done, what lets clicks through too.
  function reaching(act) {
    const style = document.createElement("style");
    style.textContent = "@layer { *, *::before, *::after { pointer-events: auto !important } }";
    document.head.append(style);
    const result = act();
    style.remove();
    return result;
  }

  // What of the named test ids can be seen: in sight, or to be scrolled to, and not covered.
  async function items(ids) {
    const elements = named(ids);
    const parted = await inside(elements);
    const item = (element, boxes) => ({ id: element.getAttribute("data-testid"), text: words(element), boxes });
    const known = reaching(() => elements.map((element) => {
      if (element.getAttribute("data-testid") === "stException") return item(element, []);
      const part = parted.get(element);
      const there = clear(element) && enough(element, part) && open(element, part);
      return there ? item(element, parts(element, part)) : null;
    }));
    const away = elements.filter((element, at) =>
      !known[at] && clear(element) && !enough(element, parted.get(element)) && scrollers(element).length);
    const shown = await reached(away);
    return elements.map((element, at) => known[at] || (shown.has(element) ? item(element, []) : null)).filter((found) => found);
  }

  const round = (number) => Math.round(number * 1000) / 1000;
  const CONTROLS =
    'button,input:not([type="hidden"]),select,textarea,a[href],[role="slider"],[role="checkbox"],[role="radio"],' +
    '[role="switch"],[role="combobox"]';
  const FRAME = '[data-testid="stHeader"],[data-testid="stToolbar"],[data-testid="stElementToolbar"],' +
    '[data-testid="stHeaderActionElements"],[data-testid="stSidebarHeader"],[data-testid="stSidebarResizeHandle"]';

  // Characters of visible text by font size in pixels.
  function texts() {
    const sizes = {};
    let visited = 0;
    for (const root of [main(), one("stSidebar")]) {
      if (!root) continue;
      const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
      while (walker.nextNode() && visited++ < 5000) {
        const text = walker.currentNode.data.trim();
        const parent = walker.currentNode.parentElement;
        if (!text || !parent || parent.closest("svg,style,script") || parent.closest(FRAME)) continue;
        if (!seen(parent)) continue;
        const size = Math.round(parseFloat(getComputedStyle(parent).fontSize) * 10) / 10;
        sizes[size] = (sizes[size] || 0) + text.length;
      }
    }
    return sizes;
  }

  // Share of a box that visible elements cover, sampled on a grid.
  function fill(boxes, area) {
    const steps = 40;
    let covered = 0;
    for (let i = 0; i < steps; i++) {
      for (let j = 0; j < steps; j++) {
        const x = area.left + ((i + 0.5) * area.width) / steps;
        const y = area.top + ((j + 0.5) * area.height) / steps;
        if (boxes.some((b) => x >= b.left && x < b.right && y >= b.top && y < b.bottom)) covered++;
      }
    }
    return round(covered / (steps * steps));
  }

  // Pairs of elements that cover a good part of each other though neither contains the other.
  function overlaps(elements) {
    let pairs = 0;
    const boxes = elements.slice(0, 150).map((element) => [element, element.getBoundingClientRect()]);
    boxes.forEach(([a, p], at) => {
      for (const [b, q] of boxes.slice(at + 1)) {
        if (a.contains(b) || b.contains(a)) continue;
        const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const height = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        const least = Math.min(p.width * p.height, q.width * q.height);
        if (width > 4 && height > 4 && width * height > 0.2 * least) pairs++;
      }
    });
    return pairs;
  }

  // Names and figures that do not fit their place and end in dots.
  function clipped() {
    const parts = '[data-testid="stMarkdownContainer"],[data-testid="stMetricValue"],[data-testid="stMetricValue"] *';
    const cut = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).textOverflow === "ellipsis";
    return [...document.querySelectorAll(parts)].filter((e) => !e.closest(FRAME) && seen(e) && cut(e)).length;
  }

  // Sizes and places at the present width.
  function layout() {
    const area = main();
    const block = one("stMainBlockContainer") || area;
    const elements = all("stElementContainer").filter((e) => area.contains(e) && seen(e));
    const boxes = elements.map((e) => e.getBoundingClientRect());
    const controls = [...document.querySelectorAll(CONTROLS)].filter((e) => seen(e) && !e.closest(FRAME));
    const inMain = controls.filter((e) => area.contains(e));
    const small = (limit) =>
      controls.filter((e) => Math.min(e.getBoundingClientRect().width, e.getBoundingClientRect().height) < limit).length;
    const screens = area.scrollHeight / Math.max(1, innerHeight);
    const first = { left: 0, top: 0, width: innerWidth, height: innerHeight };
    const content = block.getBoundingClientRect();
    const within = {
      left: Math.max(first.left, content.left), top: Math.max(first.top, content.top),
      width: Math.min(content.width, innerWidth), height: Math.min(content.height, innerHeight),
    };
    return {
      width: innerWidth,
      page_overflow: Math.max(0, document.documentElement.scrollWidth - innerWidth),
      main_overflow: Math.max(0, area.scrollWidth - area.clientWidth),
      elements: elements.length,
      controls: controls.length,
      controls_per_screen: round(inMain.length / Math.max(1, screens)),
      targets_under_24: small(24),
      targets_under_44: small(44),
      left_edges: new Set(boxes.filter((b) => b.width > 2).map((b) => Math.round(b.left / 4))).size,
      screens: round(screens),
      fill: within.height > 1 ? fill(boxes, within) : 0,
      overlaps: overlaps(elements),
      clipped: clipped(),
      text_sizes: texts(),
    };
  }

  function headings() {
    const found = [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].filter(seen).slice(0, 60);
    return found.map((e) => ({ level: Number(e.tagName[1]), text: (e.innerText || "").trim().slice(0, 80) }));
  }

  // What axe finds, by rule and by the kind of element that encloses it.
  async function audit(named) {
    const ids = new Set(named);
    const options = {
      resultTypes: ["violations"], iframes: false,
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    };
    const results = await axe.run(document, options);
    const found = [];
    for (const rule of results.violations) {
      const kinds = {};
      for (const node of rule.nodes) {
        const selector = [].concat(...node.target)[0];
        let element = null;
        try { element = document.querySelector(selector); } catch { /* a selector into a frame */ }
        const kind = enclosing(element, ids);
        kinds[kind] = kinds[kind] || { nodes: 0, target: String(selector).slice(0, 200), text: "" };
        kinds[kind].nodes++;
        if (!kinds[kind].text && element) kinds[kind].text = words(element).slice(0, 80);
      }
      for (const [kind, { nodes, target, text }] of Object.entries(kinds)) {
        found.push({ rule: rule.id, impact: rule.impact || "minor", help: rule.help.slice(0, 200), kind, nodes, target, text });
      }
    }
    return found.slice(0, 100);
  }

  // The test id of the element that something belongs to: one of the named ones, or else the nearest there is.
  function enclosing(element, ids) {
    let nearest = "page";
    for (let at = element; at; at = at.parentElement) {
      const id = at.getAttribute("data-testid");
      if (id && ids.has(id)) return id;
      if (id && nearest === "page" && id !== "stElementContainer") nearest = id;
    }
    return nearest;
  }

  // Opens a tab by its place among all tabs; false when there is none.
  async function tab(at) {
    const tabs = all("stTab").filter(seen);
    if (at >= tabs.length) return false;
    tabs[at].click();
    await frame();
    await frame();
    return true;
  }

  const SAMPLES = [
    [".csv", "sample.csv", "text/csv", "name,amount,date\nAda,12,2026-01-05\nBen,7,2026-01-06\nEva,9,2026-01-07\n"],
    [".txt", "sample.txt", "text/plain", "A first line.\nA second line.\n"],
    [".json", "sample.json", "application/json", '[{"name": "Ada", "amount": 12}, {"name": "Ben", "amount": 7}]'],
    [".png", "sample.png", "image/png", null],
  ];
  const picture = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 48];
    canvas.getContext("2d").fillRect(8, 8, 48, 32);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };

  // Gives a small file to the uploader at a place; its label, or null when there is none or it takes no such file.
  async function upload(at) {
    const input = all("stFileUploaderDropzoneInput")[at];
    if (!input) return null;
    const sample = SAMPLES.find(([end, , type]) => !input.accept || input.accept.includes(end) || input.accept.includes(type));
    const label = (input.closest('[data-testid="stFileUploader"]')?.innerText || "").split("\n")[0].slice(0, 80);
    if (!sample) return { label, file: null };
    const [, name, type, text] = sample;
    const given = new DataTransfer();
    given.items.add(new File([text ?? (await picture())], name, { type }));
    input.files = given.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    await pause(150);
    return { label, file: name };
  }

  const BUTTONS = { stButton: "button", stFormSubmitButton: "form_submit_button" };
  const pressable = () => Object.entries(BUTTONS).flatMap(([id, kind]) =>
    all(id).filter(seen).map((element) => ({ kind, label: ((element.innerText || "").trim() || words(element)).slice(0, 80), button: element.querySelector("button") })))
    .filter(({ button }) => button && !button.disabled);
  // Buttons of different names.
  function buttons() {
    const named = pressable().map(({ kind, label }) => ({ kind, label }));
    return named.filter((one, at) => named.findIndex((other) => other.kind === one.kind && other.label === one.label) === at).slice(0, 40);
  }

  const plausible = (input) => {
    const label = words(input).toLowerCase() + (input.closest('[data-testid="stTextInput"]')?.innerText || "").toLowerCase();
    if (label.includes("mail")) return "ada@example.com";
    return /url|link|website/.test(label) ? "https://example.com" : "Sample entry";
  };
  // As React hears of what is typed.
  const type = (input, text) => {
    const of = input.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(of.prototype, "value").set.call(input, text);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  // Presses a button, with the empty texts of its form filled in; false when it is not there.
  async function press(kind, label) {
    const found = pressable().find((one) => one.kind === kind && one.label === label);
    if (!found) return false;
    const form = found.button.closest('[data-testid="stForm"]');
    const empty = [...(form?.querySelectorAll('input[type="text"],input[type="password"],textarea') || [])].filter(
      (e) => !e.value && e.closest('[data-testid="stTextInput"],[data-testid="stTextArea"]'));
    empty.forEach((input) => type(input, plausible(input)));
    if (empty.length) await pause(60);
    found.button.click();
    return true;
  }

  return { rest, upload, contents, items, buttons, press, layout, headings, audit, tab, tabs: () => all("stTab").filter(seen).length, size };
})();
true;

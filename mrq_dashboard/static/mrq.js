"use strict";
// Keys, suggestions of the query box, and copying. Each page works without this file.
(() => {
  const root = document.body.dataset.root || "";
  const box = document.querySelector("input[data-query]");
  const help = document.getElementById("keys");

  // --- keys ---
  let afterG = 0;
  const isTyping = (target) => target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  const showKeys = () => help.open || help.showModal();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const since = Date.now() - afterG;
    afterG = 0;
    if (since < 1500) {
      const link = document.querySelector(`.side a[data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); return; }
    }
    if (event.key === "g") afterG = Date.now();
    else if (event.key === "?") { event.preventDefault(); showKeys(); }
    else if (event.key === "/" && box) { event.preventDefault(); box.focus(); box.select(); }
  });
  for (const button of document.querySelectorAll("[data-keys]")) {
    button.hidden = false;
    button.addEventListener("click", showKeys);
  }

  for (const here of document.querySelectorAll("nav a[aria-current]")) {
    const nav = here.closest("nav");
    nav.scrollLeft += here.getBoundingClientRect().left - nav.getBoundingClientRect().left - 40;
  }

  // --- copying ---
  if (navigator.clipboard) {
    const reveal = () => { for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false; };
    document.addEventListener("mrq:read", reveal);
    reveal();
    document.addEventListener("click", async (event) => {
      const button = event.target.closest("[data-copy]");
      if (!button) return;
      const source = document.getElementById(button.dataset.copy);
      const words = button.querySelector("span");
      try { await navigator.clipboard.writeText(source.textContent); words.textContent = "Copied"; }
      catch { words.textContent = "Not copied"; }
      setTimeout(() => { words.textContent = "Copy"; }, 1600);
    });
  }

  // --- suggestions ---
  if (!box) return;
  const list = document.createElement("ul");
  list.className = "suggestions";
  list.id = "suggestions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  list.hidden = true;
  box.parentElement.append(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" })) box.setAttribute(name, value);
  let found = [], chosen = -1, asked = null, timer = 0;

  const close = () => { list.hidden = true; chosen = -1; box.setAttribute("aria-expanded", "false"); box.removeAttribute("aria-activedescendant"); };
  const choose = (index) => {
    chosen = index;
    [...list.children].forEach((item, at) => {
      item.setAttribute("aria-selected", String(at === index));
      if (at === index) item.scrollIntoView({ block: "nearest" });
    });
    if (index < 0) box.removeAttribute("aria-activedescendant");
    else box.setAttribute("aria-activedescendant", `suggestion-${index}`);
  };
  const take = (one) => {
    const isName = one.kind === "name";
    box.setRangeText(one.text + (isName ? "" : " "), one.start, one.end, "end");
    close();
    if (isName) ask();
  };
  const show = () => {
    list.replaceChildren(...found.map((one, at) => {
      const item = document.createElement("li");
      item.id = `suggestion-${at}`;
      item.setAttribute("role", "option");
      const text = document.createElement("bdi");
      const detail = document.createElement("small");
      text.textContent = one.text;
      detail.textContent = one.detail;
      item.append(text, detail);
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(one); });
      return item;
    }));
    choose(-1);
    list.hidden = !found.length;
    box.setAttribute("aria-expanded", String(!list.hidden));
  };
  // The server counts code points, a text field UTF-16 units.
  const points = (text, units) => [...text.slice(0, units)].length;
  const units = (text, count) => [...text].slice(0, count).join("").length;
  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (asked) asked.abort();
      asked = new AbortController();
      const text = box.value;
      const query = new URLSearchParams({ text, position: points(text, box.selectionStart) });
      try {
        const answer = await fetch(`${root}/api/suggestions?${query}`, { signal: asked.signal });
        if (!answer.ok || document.activeElement !== box || box.value !== text) return close();
        found = (await answer.json()).suggestions.map((one) => ({ ...one, start: units(text, one.start), end: units(text, one.end) }));
        show();
      } catch (error) { if (error.name !== "AbortError") close(); }
    }, 120);
  };
  box.addEventListener("input", ask);
  box.addEventListener("focus", ask);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      choose((chosen + 1 + step + found.length + 1) % (found.length + 1) - 1);
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      event.preventDefault();
      take(found[chosen]);
    } else if (event.key === "Escape") { event.preventDefault(); close(); }
  });
})();

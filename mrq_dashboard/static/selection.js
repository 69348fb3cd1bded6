"use strict";
// The selection of jobs in the list: ranges, and rows that a live page does not show any more.
(() => {
  const form = document.getElementById("bulk");
  if (!form) return;
  const chosen = new Set();
  let last = null, isAll = false;
  const boxes = () => [...document.querySelectorAll('input[name="ids"][form="bulk"]')];
  const show = () => {
    const shown = boxes();
    for (const box of shown) box.checked = chosen.has(box.value);
    const here = shown.filter((box) => box.checked).length;
    for (const input of form.querySelectorAll('input[name="ids"]')) input.remove();
    for (const id of chosen) {
      if (shown.some((box) => box.value === id)) continue;
      const input = document.createElement("input");
      Object.assign(input, { type: "hidden", name: "ids", value: id });
      form.append(input);
    }
    const all = document.querySelector("input[data-all]");
    if (all) all.checked = isAll;
    const page = document.querySelector("input[data-page]");
    if (page) {
      page.hidden = false;
      page.checked = here > 0 && here === shown.length;
      page.indeterminate = here > 0 && here < shown.length;
    }
    const gone = chosen.size - here;
    const words = document.querySelector("[data-selected]");
    if (words) words.textContent = chosen.size ? `${chosen.size} selected${gone ? `, ${gone} of them not on this page` : ""}` : "None selected";
  };
  const rangeTo = (box, all) => {
    const [from, to] = [all.findIndex((one) => one.value === last), all.indexOf(box)].sort((a, b) => a - b);
    return from < 0 ? [box] : all.slice(from, to + 1);
  };
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (box.matches("input[data-all]")) isAll = box.checked;
    if (!box.matches('input[name="ids"][form="bulk"], input[data-page]')) return;
    const isPage = box.hasAttribute("data-page");
    const marked = isPage ? boxes() : event.shiftKey ? rangeTo(box, boxes()) : [box];
    for (const one of marked) chosen[box.checked ? "add" : "delete"](one.value);
    if (!isPage) last = box.value;
    show();
  });
  document.addEventListener("mrq:read", show);
  for (const box of boxes()) if (box.checked) chosen.add(box.value);  // what the browser kept on "back"
  isAll = document.querySelector("input[data-all]")?.checked ?? false;
  show();
})();

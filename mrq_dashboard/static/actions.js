"use strict";
// Shows a page that asks for confirmation as a dialog. Each action works without this file, too.
(() => {
  const dialog = document.getElementById("act");
  let isBusy = false;

  // The notice of an action is shown once, not again with each reload.
  const here = new URL(location.href);
  if (here.searchParams.has("_done")) {
    here.searchParams.delete("_done");
    history.replaceState(history.state, "", here);
  }

  const open = async (address, opener) => {
    if (isBusy || !dialog) return;
    isBusy = true;
    opener.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { headers: { "X-Fragment": "1" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const content = page.querySelector("[data-confirm]") || page.querySelector(".reasons");
      if (!content) { location.assign(address); return; }
      dialog.replaceChildren(document.adoptNode(content));
      if (!content.matches("[data-confirm]")) dialog.append(closing());
      dialog.showModal();
      dialog.querySelector(".field :is(input, textarea, select), .danger ~ a, button")?.focus();
    } catch { location.assign(address); }
    finally { isBusy = false; opener.removeAttribute("aria-busy"); }
  };
  const closing = () => {
    const [form, button] = ["form", "button"].map((name) => document.createElement(name));
    form.method = "dialog";
    button.className = "button";
    button.textContent = "Close";
    form.append(button);
    return form;
  };

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const link = event.target.closest("a[data-dialog]");
    if (link) { event.preventDefault(); open(link.href, link); }
    else if (event.target.closest("#act [data-close]")) { event.preventDefault(); dialog.close(); }
  });
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.matches("form[data-dialog]") && !event.submitter?.hasAttribute("data-plain")) {
      event.preventDefault();
      open(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form, event.submitter))}`, event.submitter || form);
    } else if (form.closest("#act") && form.method === "post") {
      event.preventDefault();
      await send(form, event.submitter);
    }
  });

  document.addEventListener("input", (event) => {
    if (!event.target.matches("#act [aria-invalid]")) return;
    event.target.removeAttribute("aria-invalid");
    for (const problem of event.target.form.querySelectorAll(".problem")) problem.hidden = true;
  });

  // The error stands beside its field: that of "params.user" is "argument.user", or else "params".
  const fieldOf = (form, path) => [path, path.replace(/^params\./, "argument."), path.split(".")[0]]
    .map((name) => form.querySelector(`.field [name="${CSS.escape(name)}"]`)).find(Boolean);
  const send = async (form, button) => {
    if (isBusy) return;
    isBusy = true;
    const problem = form.querySelector(".problem");
    problem.hidden = true;
    button?.setAttribute("aria-busy", "true");
    form.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
    let path = "", words = "The server does not answer. Press again: the action is done once at most.";
    try {
      const answer = await fetch(form.getAttribute("action"), { method: "POST", headers: { "X-Fragment": "1" }, body: new URLSearchParams(new FormData(form)) });
      const value = await answer.json();
      if (answer.ok) { location.assign(value.url); return; }
      words = value.error.message;
      path = value.error.path || "";
    } catch (error) { if (error.name !== "TypeError" && error.name !== "SyntaxError") throw error; }
    finally { isBusy = false; button?.removeAttribute("aria-busy"); }
    problem.textContent = words;
    problem.hidden = false;
    const wrong = fieldOf(form, path);
    if (wrong) { wrong.closest(".field").append(problem); wrong.setAttribute("aria-invalid", "true"); wrong.focus(); }
    else form.querySelector(".row").before(problem);
  };
})();

// For the whole page: files that are pasted, and keys that Gradio leaves out.
() => {
  document.addEventListener("paste", (event) => { // to the upload of the tab that is open
    const open = [...document.querySelectorAll(".lk-paste")].find((one) => one.offsetParent);
    const input = open?.querySelector("input[type=file]"), { files } = event.clipboardData;
    if (!input || !files.length) return;
    event.preventDefault();
    input.files = files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
    if (key === "Tab" && target.matches(".secondary-wrap input")) {
      event.stopPropagation(); // or the list of a choice stays open when it is left
    } else if (step && target.matches("input[type=radio]")) {
      const all = [...target.closest("fieldset").querySelectorAll("input[type=radio]")];
      const next = all.at((all.indexOf(target) + step) % all.length);
      next.focus();
      next.click();
      event.preventDefault();
    }
  }, true);
}

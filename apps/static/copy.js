// A button that copies the address of what is shown; where that is not allowed, it is shown.
element.addEventListener("click", async (event) => {
  const button = event.target.closest(".lk-copy");
  if (!button) return;
  const address = new URL(button.dataset.link, location.origin + location.pathname).href;
  try {
    await navigator.clipboard.writeText(address);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy link"; }, 2000);
  } catch {
    window.prompt("Copy this address:", address);
  }
});

// The verdict comes into view where it lies below it, as on a phone; the page's own first does not.
let opened = false;
watch("value", () => {
  const below = element.getBoundingClientRect().top > window.innerHeight;
  if (opened && below) element.scrollIntoView();
  opened ||= Boolean(element.querySelector(".lk-card"));
});
// A button that copies the address of what is shown; where that is not allowed, it is shown.
element.addEventListener("click", async (event) => {
  const button = event.target.closest(".lk-copy");
  if (!button) return;
  const address = new URL(button.dataset.link, location.origin + location.pathname).href;
  try {
    await navigator.clipboard.writeText(address);
    const words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 2000);
  } catch {
    window.prompt("Copy this address:", address);
  }
});

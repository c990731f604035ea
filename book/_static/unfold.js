// What is wider than its box scrolls: make it reachable with Tab. The theme does so for code, but only
// when the page opens or changes its size, and a while later; folded code has no size then.
const reach = () => {
  for (const box of document.querySelectorAll("table.dataframe, article pre")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else if (box.matches("table")) box.removeAttribute("tabindex");
  }
};
document.addEventListener("click", (event) => {
  if (event.target.closest("summary, .toggle-button, .admonition-title")) {
    setTimeout(() => window.dispatchEvent(new Event("resize")), 50);
    setTimeout(reach, 100);
  }
});
window.addEventListener("load", reach);
window.addEventListener("resize", reach);

// Before anything is drawn: the theme that was chosen here last. Without one the system's choice holds.
{
  const theme = localStorage.getItem("contexten-flow.theme");
  if (theme) document.documentElement.dataset.theme = theme;
}

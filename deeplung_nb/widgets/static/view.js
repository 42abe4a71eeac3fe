
export default { render: (context) => show(context, Viewer) };

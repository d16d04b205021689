"""Tables, figures and the HTML page, read from a results folder."""

"""The page of the server: plain HTML, CSS and JavaScript, served as they are."""

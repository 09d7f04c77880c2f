"""One file a step of the sweep: what joins the library with the actors."""

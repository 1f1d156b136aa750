"""An outbound mail filter that hosting companies and mail providers run themselves."""

"""One evening of mail through all of Postweir, on loopback: `make demo`."""

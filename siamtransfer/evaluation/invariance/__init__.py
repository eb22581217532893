"""How far features move when their images are transformed."""

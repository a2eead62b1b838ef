"""Programming models: ordinary code over a Session, written with continuations and handles."""

# The verbs people type. Plain cargo works as well; see README.md.

# Format, lint, docs and tests: what continuous integration runs.
check:
    .ci/run

test:
    cargo test --workspace --locked

# Tokens per second and share of the measured hardware limits.
bench model *args:
    cargo run --release --locked -p carat-cli -- bench {{model}} {{args}}

chat *args:
    cargo run --release --locked -p carat-cli -- run {{args}}

//! breakglass.toml and the environment, as values for everybody above.

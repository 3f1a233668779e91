//! breakglass.toml and the environment, as values for everybody above.
//!
//! Precedence: flag > environment > plan attribute > ./breakglass.toml > user file > default.

pub mod backend;
pub mod health;
pub mod load;
pub mod settings;
pub mod url;

pub use backend::Backend;
pub use load::{Config, Environment};
pub use settings::{Connection, Policies, Secrets, ServiceSettings, Settings};

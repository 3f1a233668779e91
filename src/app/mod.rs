//! Elm core of the console: App, Msg, update to Effects, the command table, the driver.

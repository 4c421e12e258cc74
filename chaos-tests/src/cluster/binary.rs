//! Where the `flott` binary of this build is, and what else was built beside it.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// A file of that name beside the running program: in `target/debug` for `target/debug/chaos`, and for a test
/// `target/debug/deps/it-…`.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the running program has no path")?;
    let mut profile = program.parent().context("the program lies nowhere")?;
    if profile.ends_with("deps") {
        profile = profile
            .parent()
            .context("the test does not lie in target/<profile>/deps")?;
    }
    Ok(profile.join(name))
}

/// The `flott` binary that was built beside the running program.
///
/// Cargo builds no other package's binary for a test, so whoever runs the tests builds it first; `make test` does.
pub fn flott_binary() -> anyhow::Result<PathBuf> {
    let binary = beside("flott")?;
    ensure!(
        binary.is_file(),
        "{} is missing: run `cargo build -p flott-cli` first",
        binary.display()
    );
    Ok(binary)
}

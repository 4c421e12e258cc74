//! Lets `getrandom` of this program be found by those who look it up at run time, as the crate of that name does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
}

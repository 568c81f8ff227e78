//! What the linker is to do with libraftz.so.

fn main() {
    let version =
        |part: &str| std::env::var(format!("CARGO_PKG_VERSION_{part}")).unwrap_or_default();
    // Before 1.0 each minor version may change the ABI, and the name says so.
    let abi = match version("MAJOR").as_str() {
        "0" => format!("0.{}", version("MINOR")),
        major => major.to_owned(),
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libraftz.so.{abi}");
    // Threads of the library may outlive a dlclose, and so must its code.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-env=RAFTZ_ABI={abi}");
    println!("cargo:rerun-if-changed=build.rs");
}

//! Which version this is, at compile time and at run time.

use std::ffi::c_char;

/// \brief Version of this header: its major number.
pub const RAFTZ_VERSION_MAJOR: u32 = 0;
/// \brief Version of this header: its minor number. Before 1.0 each may change the ABI.
pub const RAFTZ_VERSION_MINOR: u32 = 2;
/// \brief Version of this header: its patch number.
pub const RAFTZ_VERSION_PATCH: u32 = 0;
/// \brief Version of this header as one number: major * 10000 + minor * 100 + patch.
pub const RAFTZ_VERSION: u32 = 200;
/// \brief Version of this header's vtables; to be put into their `abi_version`.
pub const RAFTZ_ABI_VERSION: u32 = 1;

/// \brief Version of the library that is running, as RAFTZ_VERSION gives that of the header.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \return Major * 10000 + minor * 100 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_version() -> u32 {
    RAFTZ_VERSION
}

/// \brief Version of the library that is running, as text: "0.2.0".
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \return Static text; never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_version_text() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// \brief The newest vtable version that the running library knows, as RAFTZ_ABI_VERSION.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \return The version.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_abi_version() -> u32 {
    RAFTZ_ABI_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_package_s() {
        let text = format!("{RAFTZ_VERSION_MAJOR}.{RAFTZ_VERSION_MINOR}.{RAFTZ_VERSION_PATCH}");
        assert_eq!(text, env!("CARGO_PKG_VERSION"));
        let number = RAFTZ_VERSION_MAJOR * 10000 + RAFTZ_VERSION_MINOR * 100 + RAFTZ_VERSION_PATCH;
        assert_eq!(number, RAFTZ_VERSION);
        assert!(env!("RAFTZ_ABI").starts_with(&RAFTZ_VERSION_MAJOR.to_string()));
    }
}

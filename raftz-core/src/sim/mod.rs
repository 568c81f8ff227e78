//! A deterministic simulator of whole clusters.
#![allow(missing_docs)]

pub mod choice;

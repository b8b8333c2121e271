//! The parts of the web server that need no hardware: reading a request and making an answer. They never
//! touch a socket; the program in `main.rs` carries bytes.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod request;
pub mod response;

//! The `hone` command: arguments, terminal, exit codes. What it does is in the library.

mod args;
mod bases;
mod canary;
mod commands;
mod context;
mod display;
mod error;
mod models;
mod own;
mod rows;

/// Reading a hundred thousand rows allocates millions of small things on every core (docs/design/dataset.md has figures).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let exit = commands::main(<args::Args as clap::Parser>::parse());
    std::process::ExitCode::from(exit as u8)
}

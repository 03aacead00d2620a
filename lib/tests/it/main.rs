//! Integration tests of the library, in one binary.

// The attribute tells the linter that helpers may unwrap too.
#[cfg(test)]
mod arrows;
#[cfg(test)]
mod client;
#[cfg(test)]
mod critic;
#[cfg(test)]
mod evolve;
#[cfg(test)]
mod finetune;
#[cfg(test)]
mod guidelines;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod program;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod tuning;
#[cfg(test)]
mod validate;

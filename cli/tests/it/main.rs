//! The `hone` command as people run it: a scratch home, a scratch workspace, real exit codes.

#[cfg(test)]
mod agents;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod check;
#[cfg(test)]
mod critique;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod exits;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod meter;
#[cfg(test)]
mod models;
#[cfg(test)]
mod pairs;
#[cfg(test)]
mod pause;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod rate;
#[cfg(test)]
mod real;
#[cfg(test)]
mod service;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod validate;

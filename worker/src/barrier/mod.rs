//! When a task takes its snapshot.
//!
//! A barrier divides every channel into what belongs to a checkpoint and what comes after it. A task with several
//! channels holds back those whose barrier has come until it has come in all: [`aligner`] (pure). The run loop in
//! `task::run` does what the aligner says.

pub mod aligner;

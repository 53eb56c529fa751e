// SPDX-License-Identifier: GPL-2.0

//! Checks the histories of module loading that the guest records: reads the output of
//! `tools/testing/selftests/kmod/load_history.c`, looks for an order of the calls that explains
//! all their results, and fails if there is none.

mod history;
mod model;

use history::Call;
use model::Violation;
use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    mem,
    process::ExitCode,
};

/// Calls between two reports of progress.
const PROGRESS: u64 = 100_000;

/// The totals of the checks.
#[derive(Default)]
struct Summary {
    calls: u64,
    histories: u64,
    explained: u64,
    /// Violations of each kind: how many, the smallest one, and its round.
    violations: BTreeMap<String, (u64, Violation, String)>,
}

impl Summary {
    /// Checks the calls of a round.
    fn check(&mut self, round: &str, calls: Vec<Call>) {
        let mut histories = BTreeMap::<_, Vec<_>>::new();
        let before = self.calls;

        for call in calls {
            histories.entry(call.module.clone()).or_default().push(call);
        }
        for calls in histories.into_values() {
            self.histories += 1;
            self.calls += calls.len() as u64;
            match model::violation(&calls) {
                Some(violation) => self.add(round, violation),
                None => self.explained += calls.len() as u64,
            }
        }
        if self.calls / PROGRESS > before / PROGRESS {
            eprintln!("{} calls checked", self.calls);
        }
    }

    fn add(&mut self, round: &str, violation: Violation) {
        let misfit = &violation.misfit;
        let kind = format!("{} returns {}", misfit.kind_name(), misfit.result_name());
        let (count, smallest, of) = self
            .violations
            .entry(kind)
            .or_insert_with(|| (0, violation.clone(), round.to_owned()));

        *count += 1;
        if violation.calls.len() < smallest.calls.len() {
            *smallest = violation;
            *of = round.to_owned();
        }
    }

    fn print(&self) {
        for (kind, (count, violation, round)) in &self.violations {
            println!("violation: {kind}, {count} times; the smallest, in {round}:");
            println!("  who       start    end  call{:43}result", "");
            for call in &violation.calls {
                let mark = if call.start == violation.misfit.start {
                    '>'
                } else {
                    ' '
                };

                println!("{mark} {call}");
            }
        }
        println!(
            "{} calls in {} histories: {} calls explained, {} violations",
            self.calls,
            self.histories,
            self.explained,
            self.violations.values().map(|of| of.0).sum::<u64>()
        );
    }
}

fn main() -> io::Result<ExitCode> {
    let mut summary = Summary::default();
    let mut round = String::new();
    let mut calls = Vec::new();

    for line in io::stdin().lock().lines() {
        let line = line?;

        if line.starts_with("round ") {
            summary.check(&round, mem::take(&mut calls));
            round = line;
        } else if let Ok(call) = line.parse() {
            calls.push(call);
        } else {
            println!("{line}");
        }
    }
    summary.check(&round, calls);
    summary.print();
    let is_clean = summary.violations.is_empty() && summary.calls > 0;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

//! What kernels use of a GPU, as ptxas tells it, and how much they may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Failure;

/// The architectures that are looked at.
pub const ARCHITECTURES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

/// What a kernel uses on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of shared memory a block, without what is asked for at the launch.
    pub shared: u32,
    /// Bytes of local memory: the stack, and what of it are registers that found no place.
    pub local: u32,
    /// Bytes of stores and loads of such registers.
    pub spilled: u32,
}

/// What a kernel uses, by architecture: `sm_75`, `sm_80`, ….
pub type PerArchitecture = BTreeMap<String, Resources>;

/// What `ptxas -v` says of each kernel.
pub fn read(verbose: &str) -> Result<BTreeMap<String, Resources>, Failure> {
    let mut kernels = BTreeMap::new();
    let mut kernel = None;
    for line in verbose.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = Some(kernels.entry(rest.split('\'').next().unwrap_or_default().to_owned()).or_insert_with(Resources::default));
        } else if let Some(kernel) = kernel.as_mut() {
            kernel.registers = kernel.registers.max(number(line, " registers"));
            kernel.shared = kernel.shared.max(number(line, " bytes smem"));
            kernel.local = kernel.local.max(number(line, " bytes stack frame")).max(number(line, " bytes lmem"));
            kernel.spilled = kernel.spilled.max(number(line, " bytes spill stores") + number(line, " bytes spill loads"));
        }
    }
    // A ptxas that words it otherwise must not look like kernels that use nothing.
    match kernels.iter().find(|(_, used)| used.registers == 0) {
        Some((name, _)) => Err(format!("ptxas does not say how many registers {name} uses:\n{verbose}").into()),
        None => Ok(kernels),
    }
}

/// The number before a word, 0 if it is not there.
fn number(line: &str, word: &str) -> u32 {
    let before = line.find(word).map_or("", |at| &line[..at]);
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// `limits.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    default: Limit,
    #[serde(default)]
    kernels: BTreeMap<String, Exception>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    registers: u32,
    shared: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    registers: Option<u32>,
    shared: Option<u32>,
    reason: String,
}

impl Limits {
    /// Reads the text of `limits.toml`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let limits: Self = toml::from_str(text).map_err(|error| format!("limits.toml: {error}"))?;
        for (name, exception) in &limits.kernels {
            if exception.reason.trim().is_empty() {
                return Err(format!("limits.toml: {name} has no reason").into());
            }
        }
        Ok(limits)
    }

    /// What is over its limit, in words, kernel after kernel.
    pub fn broken(&self, kernels: &BTreeMap<String, PerArchitecture>) -> Vec<String> {
        let unknown = self.kernels.keys().filter(|name| !kernels.contains_key(*name));
        let mut broken: Vec<String> = unknown.map(|name| format!("limits.toml has an entry for {name}, and there is no such kernel")).collect();
        for (name, used) in kernels {
            let limit = self.of(name);
            for (arch, used) in used {
                let rows = [
                    (used.registers, limit.registers, "registers"),
                    (used.shared, limit.shared, "bytes of shared memory"),
                    (used.local, 0, "bytes of local memory"),
                    (used.spilled, 0, "bytes of spilled registers"),
                ];
                let over = rows.iter().filter(|(used, limit, _)| used > limit);
                broken.extend(over.map(|(used, limit, what)| format!("{name} on {arch}: {used} {what}, the limit is {limit}")));
            }
        }
        broken
    }

    fn of(&self, name: &str) -> Limit {
        let Some(exception) = self.kernels.get(name) else { return self.default };
        Limit { registers: exception.registers.unwrap_or(self.default.registers), shared: exception.shared.unwrap_or(self.default.shared) }
    }
}

/// Registers of each kernel on each architecture, and the most of the rest.
pub fn table(kernels: &BTreeMap<String, PerArchitecture>) -> String {
    let width = kernels.keys().map(String::len).max().unwrap_or(0).max("registers".len());
    let mut text = format!("{:width$}", "registers");
    text.extend(ARCHITECTURES.map(|arch| format!(" {:>6}", format!("sm_{arch}"))));
    text += "  shared\n";
    for (name, used) in kernels {
        text += &format!("{name:width$}");
        text.extend(ARCHITECTURES.map(|arch| format!(" {:>6}", used.get(&format!("sm_{arch}")).map_or(0, |used| used.registers))));
        text += &format!(" {:>7}\n", used.values().map(|used| used.shared).max().unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "\
ptxas info    : 11816 bytes gmem, 160 bytes cmem[4]
ptxas info    : Compiling entry function 'deep' for 'sm_75'
ptxas info    : Function properties for deep
    160 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compiling entry function 'flat' for 'sm_75'
ptxas info    : Function properties for flat
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 64 bytes smem, 384 bytes cmem[0]
ptxas info    : Compile time = 3.584 ms
";

    fn used() -> BTreeMap<String, PerArchitecture> {
        read(VERBOSE).unwrap().into_iter().map(|(name, used)| (name, BTreeMap::from([("sm_75".to_owned(), used)]))).collect()
    }

    #[test]
    fn what_ptxas_says_is_read() {
        let kernels = read(VERBOSE).unwrap();
        assert_eq!(kernels["deep"], Resources { registers: 64, shared: 0, local: 160, spilled: 40 });
        assert_eq!(kernels["flat"], Resources { registers: 14, shared: 64, local: 0, spilled: 0 });
        assert!(read(&VERBOSE.replace("registers", "slots")).is_err());
    }

    #[test]
    fn limits_hold_by_kernel() {
        let limits = Limits::parse("default = { registers = 14, shared = 63 }\n[kernels.deep]\nregisters = 64\nreason = \"why not\"").unwrap();
        let broken = limits.broken(&used());
        let expected = [
            "deep on sm_75: 160 bytes of local memory, the limit is 0",
            "deep on sm_75: 40 bytes of spilled registers, the limit is 0",
            "flat on sm_75: 64 bytes of shared memory, the limit is 63",
        ];
        assert_eq!(broken, expected);
    }

    #[test]
    fn entries_need_a_kernel_and_a_reason() {
        let limits = Limits::parse("default = { registers = 255, shared = 64 }\n[kernels.gone]\nshared = 1\nreason = \"it was there\"").unwrap();
        assert_eq!(limits.broken(&BTreeMap::new()), ["limits.toml has an entry for gone, and there is no such kernel"]);
        for text in ["", "default = { registers = 1 }", "default = { registers = 1, shared = 1 }\nother = 1"] {
            assert!(Limits::parse(text).is_err(), "{text}");
        }
        for reason in ["", "reason = \"\""] {
            assert!(Limits::parse(&format!("default = {{ registers = 1, shared = 1 }}\n[kernels.a]\n{reason}")).is_err());
        }
    }
}

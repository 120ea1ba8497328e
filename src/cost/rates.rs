//! What a machine costs per hour: what Modal tells, where that can be understood, and else the configured table.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use super::Usd;
use crate::class::{Gpu, Machine, RunnerClass};

/// Modal's rate is not believed where it is so many times the table's, or so many times less: it is then probably for
/// another unit, such as a second or a month.
const NEAR_TIMES: u32 = 10;
/// What Modal gives a sandbox where nothing is asked for: thousandths of a core, and MiB (`modal-api.md` §14.4).
const LEAST_MACHINE: (u32, u32) = (125, 128);
/// Words of Modal's names for rates that tell no GPU from another.
const FILLERS: [&str; 11] =
    ["gpu", "gpus", "nvidia", "sandbox", "sandboxes", "per", "hour", "hourly", "rate", "price", "usd"];

/// US dollars per hour of a physical core of a sandbox: Modal's price page of September and October 2026, 0.00003942 per
/// second.
pub const CPU_PRICE: f64 = 0.141_912;
/// Of a GiB of a sandbox's memory: 0.00000667 per second.
pub const MEMORY_PRICE: f64 = 0.024_012;
/// Of one GPU.
pub const GPU_PRICES: [(&str, f64); 11] = [
    ("T4", 0.5904),
    ("L4", 0.7992),
    ("A10", 1.1016),
    ("L40S", 1.9512),
    ("A100", 2.0988),
    ("A100-80GB", 2.4984),
    ("RTX-PRO-6000", 3.0312),
    ("H100", 3.9492),
    ("H200", 4.5396),
    ("B200", 6.2496),
    ("B300", 7.0992),
];

/// US dollars per hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Of a physical core.
    pub cpu: Usd,
    /// Of a GiB of memory.
    pub memory: Usd,
    /// Of one GPU, by [`gpu_key`].
    pub gpus: BTreeMap<String, Usd>,
}

/// What the table had to stand in for, as its keys are called.
pub type Unrecognised = BTreeSet<String>;

/// The resources of a sandbox as Modal lists them; what it does not list is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// Thousandths of a physical core.
    pub milli_cpu: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// The GPU's name; how many there are is not listed.
    pub gpu: Option<String>,
    /// What it was asked for on, where its tags tell; else what is listed counts, and that of its class.
    pub machine: Option<Machine>,
}

/// A GPU's name without what does not change its price: `H100!` is an H100, and the A100 has 40 GB unless it says 80.
pub fn gpu_key(name: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match plain.as_str() {
        "a10040gb" => "a100".to_owned(),
        "a10g" => "a10".to_owned(),
        _ => plain,
    }
}

impl Default for Rates {
    fn default() -> Self {
        let usd = |price| Usd::try_from(price).expect("the prices above are amounts");
        let gpus = GPU_PRICES.iter().map(|(name, price)| (gpu_key(name), usd(*price)));
        Self { cpu: usd(CPU_PRICE), memory: usd(MEMORY_PRICE), gpus: gpus.collect() }
    }
}

impl Rates {
    /// These, with what Modal tells in their place: its keys are free text, so one counts only where it is the only one
    /// that can mean a resource, and what it says is not far from what is known. Also tells what is still of the table.
    #[must_use]
    pub fn told(&self, told: &BTreeMap<String, String>) -> (Self, Unrecognised) {
        let mut left = Unrecognised::new();
        let mut pick = |name: &str, known: Usd, means: &dyn Fn(&str) -> bool| {
            let found = only(told, means).filter(|rate| rate.is_near(known, NEAR_TIMES));
            if found.is_none() {
                left.insert(name.to_owned());
            }
            found.unwrap_or(known)
        };
        let cpu = pick("cpu", self.cpu, &|key| is_of_sandboxes(key, &["cpu"]) && !key.contains("vcpu"));
        let memory = pick("memory", self.memory, &|key| is_of_sandboxes(key, &["memory", "mem"]));
        let mut gpus: BTreeMap<String, Usd> = BTreeMap::new();
        for (name, known) in &self.gpus {
            gpus.insert(name.clone(), pick(name, *known, &|key| gpu_of(key) == *name));
        }
        // One that the table lacks counts where Modal says that it is a GPU.
        let others: BTreeSet<String> =
            told.keys().filter(|key| words(key).any(|word| word == "gpu")).map(|key| gpu_of(key)).collect();
        for name in others.into_iter().filter(|name| !self.gpus.contains_key(name)) {
            gpus.extend(only(told, &|key| gpu_of(key) == name).map(|rate| (name.clone(), rate)));
        }
        (Self { cpu, memory, gpus }, left)
    }
}

/// The rate of the one key that means something; none where several say different things.
fn only(told: &BTreeMap<String, String>, means: &dyn Fn(&str) -> bool) -> Option<Usd> {
    let rates: Option<BTreeSet<Usd>> =
        told.iter().filter(|(key, _)| means(&key.to_lowercase())).map(|(_, rate)| rate.parse().ok()).collect();
    let rates = rates?;
    if rates.len() == 1 { rates.first().copied().filter(|rate| !rate.is_zero()) } else { None }
}

fn words(key: &str) -> impl Iterator<Item = String> {
    let words = key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().into_iter()
}

/// Whether a key speaks of sandboxes and of one of some resources: Functions cost a third of that.
fn is_of_sandboxes(key: &str, resources: &[&str]) -> bool {
    key.contains("sandbox")
        && words(key).any(|word| resources.iter().any(|it| word == *it || word == format!("sandbox{it}")))
}

/// What is left of a key without fillers, in the form of [`gpu_key`].
fn gpu_of(key: &str) -> String {
    gpu_key(&words(key).filter(|word| !FILLERS.contains(&word.as_str())).collect::<String>())
}

/// What a sandbox costs per hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// By resource.
    pub rates: Rates,
    /// What a sandbox of a class that names regions costs more: 1 for nothing.
    pub region_factor: Decimal,
}

impl Default for Prices {
    fn default() -> Self {
        Self { rates: Rates::default(), region_factor: Decimal::ONE }
    }
}

impl Prices {
    /// A sandbox of a class; none where that is not known.
    pub fn of_class(&self, class: &RunnerClass) -> Option<Usd> {
        self.of(&Resources::default(), Some(class))
    }

    /// A sandbox of a class on each of the machines that it may be on, as far as that is known.
    pub fn of_machines(&self, class: &RunnerClass) -> BTreeMap<Machine, Usd> {
        let price = |machine: Machine| {
            let resources = Resources { machine: Some(machine.clone()), ..Resources::default() };
            Some((machine, self.of(&resources, Some(class))?))
        };
        class.machines().into_iter().filter_map(price).collect()
    }

    /// A sandbox with a machine, of a class where it is still there: its own price, else what its resources cost. None
    /// where it has a GPU whose price is not known.
    pub fn of(&self, resources: &Resources, class: Option<&RunnerClass>) -> Option<Usd> {
        if let Some(price) = class.and_then(|class| class.price) {
            return Some(price);
        }
        let gpus = match self.gpu(resources, class) {
            Some((name, count)) => self.gpu_rate(name)?.times(count.into()),
            None => Usd::ZERO,
        };
        let regions = resources.machine.as_ref().map(|machine| &machine.regions).or(class.map(|class| &class.regions));
        let factor = if regions.is_none_or(Vec::is_empty) { Decimal::ONE } else { self.region_factor };
        Some((self.without_gpu(resources, class) + gpus).times(factor))
    }

    /// The GPU that counts, and how many: what it was asked for on. Where no tag of ours tells that, what is listed, unless
    /// that is a name without a price where its class has one: Modal may list what it assigned, and under names of its own.
    pub(super) fn gpu<'a>(&self, resources: &'a Resources, class: Option<&'a RunnerClass>) -> Option<(&'a str, u32)> {
        let of = |gpu: &'a Gpu| (gpu.name.as_str(), gpu.count.max(1));
        if let Some(machine) = &resources.machine {
            return machine.gpu.as_ref().map(of);
        }
        let of_class = class.and_then(|class| class.gpu.as_ref()).map(of);
        let listed = resources.gpu.as_deref().map(|name| (name, of_class.map_or(1, |(_, count)| count)));
        listed.filter(|(name, _)| self.gpu_rate(name).is_some()).or(of_class).or(listed)
    }

    fn gpu_rate(&self, name: &str) -> Option<Usd> {
        self.rates.gpus.get(&gpu_key(name)).copied()
    }

    /// Those machines of a class whose price is not known.
    pub fn unpriced(&self, class: &RunnerClass) -> Vec<Machine> {
        let prices = self.of_machines(class);
        class.machines().into_iter().filter(|machine| !prices.contains_key(machine)).collect()
    }

    /// Whether Modal takes more for the place of a machine than is counted.
    pub fn lacks_surcharge(&self, class: &RunnerClass, machine: &Machine) -> bool {
        class.price.is_none() && !machine.regions.is_empty() && self.region_factor == Decimal::ONE
    }

    /// Its cores and its memory alone.
    pub fn without_gpu(&self, resources: &Resources, class: Option<&RunnerClass>) -> Usd {
        let thousandth = |milli: u32| Decimal::new(milli.into(), 3);
        let of_class = || class.and_then(|class| Decimal::try_from(class.cpu).ok());
        let cores = resources.milli_cpu.map(thousandth).or_else(of_class).unwrap_or(thousandth(LEAST_MACHINE.0));
        let mib = resources.memory_mib.or(class.map(|class| class.memory_mib)).unwrap_or(LEAST_MACHINE.1);
        self.rates.cpu.times(cores) + self.rates.memory.times(Decimal::from(mib) / Decimal::from(1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn table() -> Rates {
        let gpus = [("t4", "0.59"), ("a100", "2.1"), ("a10080gb", "2.5"), ("rtxpro6000", "3")];
        let gpus = gpus.map(|(name, rate)| (name.to_owned(), usd(rate)));
        Rates { cpu: usd("0.14"), memory: usd("0.024"), gpus: gpus.into() }
    }

    fn told(rates: &[(&str, &str)]) -> (Rates, String) {
        let told = rates.iter().map(|(key, rate)| ((*key).to_owned(), (*rate).to_owned())).collect();
        let (rates, left) = table().told(&told);
        (rates, Vec::from_iter(left).join(" "))
    }

    #[test]
    fn whatever_its_keys_are_called_what_modal_tells_counts() {
        for keys in [
            ["sandbox_cpu_core", "sandbox_memory_gib", "gpu_t4", "gpu_a100_40gb", "gpu_a100_80gb", "gpu_rtx_pro_6000"],
            [
                "Sandbox CPU (physical core)",
                "Sandbox memory, GiB",
                "Nvidia T4",
                "A100-40GB",
                "A100 80 GB",
                "GPU RTX-PRO-6000 per hour",
            ],
        ] {
            let values = ["0.2", "0.03", "0.5", "2", "3", "4"];
            let pairs: Vec<_> = keys.into_iter().zip(values).collect();
            let (rates, left) = told(&pairs);
            assert_eq!(left, "");
            assert_eq!([rates.cpu, rates.memory], [usd("0.2"), usd("0.03")]);
            let gpus: Vec<_> = ["t4", "a100", "a10080gb", "rtxpro6000"].map(|name| rates.gpus[name]).into();
            assert_eq!(gpus, [usd("0.5"), usd("2"), usd("3"), usd("4")]);
        }
    }

    #[test]
    fn what_cannot_be_told_for_certain_is_taken_from_the_table() {
        let all = "a100 a10080gb cpu memory rtxpro6000 t4";
        for (rates, why) in [
            (&[("cpu_core", "0.05"), ("memory", "0.008")][..], "those of Functions"),
            (&[("sandbox_cpu", "0.2"), ("sandbox_cpu_reserved", "0.1")], "two that differ"),
            (&[("sandbox_cpu", "0.0000394"), ("sandbox_memory", "17.5")], "other units"),
            (&[("sandbox_cpu", "free"), ("sandbox_memory", "0")], "no amounts"),
            (&[("sandbox_vcpu", "0.07")], "half a core"),
            (&[], "nothing"),
        ] {
            assert_eq!(told(rates), (table(), all.to_owned()), "{why}");
        }
        let (rates, left) = told(&[("sandbox_cpu", "0.2"), ("sandbox cpu", "0.20"), ("gpu_b300", "7.1")]);
        assert_eq!((rates.cpu, left.contains("cpu")), (usd("0.2"), false), "two that agree");
        assert_eq!(rates.gpus.get("b300"), Some(&usd("7.1")), "one that the table lacks");
    }

    #[test]
    fn a_machine_costs_what_its_parts_cost() {
        let prices = Prices { rates: table(), region_factor: Decimal::ONE };
        let machine = |gpu: Option<&str>| Resources {
            milli_cpu: Some(2000),
            memory_mib: Some(8192),
            gpu: gpu.map(str::to_owned),
            machine: None,
        };
        assert_eq!(prices.of(&machine(None), None), Some(usd("0.472")));
        assert_eq!(prices.of(&machine(Some("A100!")), None), Some(usd("2.572")));
        assert_eq!(prices.of(&machine(Some("Z9")), None), None, "what a Z9 costs is not known");
        assert_eq!(prices.of(&Resources::default(), None), Some(usd("0.0205")), "the least that Modal gives");
    }

    #[test]
    fn names_of_one_price_have_one_key() {
        let keys = ["A100", "A100-40GB", "A100-80GB", "H100!", "B200+", "A10G", "RTX-PRO-6000"].map(gpu_key);
        assert_eq!(keys, ["a100", "a100", "a10080gb", "h100", "b200", "a10", "rtxpro6000"]);
    }
}

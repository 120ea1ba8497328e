//! What a sandbox is placed on: its GPUs, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most characters of a tag's value (Modal's clients: 63).
const TAG_CHARS_MAX: usize = 63;

/// The most GPUs of one sandbox (Modal's guide on GPUs).
const GPUS_MAX: u32 = 8;

/// A GPU as Modal names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gpu {
    /// The name in upper case, such as `A100-80GB`.
    pub name: String,
    /// How many per sandbox.
    pub count: u32,
}

impl Gpu {
    /// Reads a name with an optional `:count`, such as `h100:2`. What GPUs there are is Modal's to know, so any name will do.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-!+".contains(&b));
        let count = count.parse().ok().filter(|count| is_name && (1..=GPUS_MAX).contains(count))?;
        Some(Self { name: name.to_uppercase(), count })
    }

    /// The value of a tag for it, in which neither a colon nor `!` nor `+` may stand: `2.H100`.
    pub fn as_tag(&self) -> String {
        format!("{}.{}", self.count, self.name.replace('!', "_e").replace('+', "_p"))
    }

    /// The other way round; none where it is no such value.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let (count, name) = tag.split_once('.')?;
        Self::parse(&format!("{}:{count}", name.replace("_e", "!").replace("_p", "+")))
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.count == 1 { Ok(()) } else { write!(f, ":{}", self.count) }
    }
}

/// What a sandbox is asked for on.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The GPU, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Modal regions, any of which will do; empty for anywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

impl Machine {
    /// How many GPUs it has.
    pub fn gpus(&self) -> u32 {
        self.gpu.as_ref().map_or(0, |gpu| gpu.count)
    }

    /// Whether it is any machine without a GPU.
    pub fn is_any(&self) -> bool {
        self.gpu.is_none() && self.regions.is_empty()
    }

    /// The value of a tag for its regions, with a dot between them; none for anywhere. As many as there is room for.
    pub fn regions_tag(&self) -> Option<String> {
        let mut tag = String::new();
        for region in &self.regions {
            let dot = usize::from(!tag.is_empty());
            if tag.len() + dot + region.len() > TAG_CHARS_MAX {
                break;
            }
            tag.extend((dot > 0).then_some('.'));
            tag.push_str(region);
        }
        (!tag.is_empty()).then_some(tag)
    }

    /// The regions of a tag.
    pub fn regions_of_tag(tag: &str) -> Vec<String> {
        tag.split('.').map(str::to_owned).collect()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gpu {
            Some(gpu) => gpu.fmt(f)?,
            None => f.write_str("no GPU")?,
        }
        if self.regions.is_empty() { Ok(()) } else { write!(f, " in {}", self.regions.join(" or ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_a_gpu_and_comes_back_from_its_tag() {
        for (text, shown, tag) in [
            ("t4", "T4", "1.T4"),
            ("h100:2", "H100:2", "2.H100"),
            ("A100-80gb", "A100-80GB", "1.A100-80GB"),
            ("H100!:8", "H100!:8", "8.H100_e"),
            ("b200+", "B200+", "1.B200_p"),
            ("of-tomorrow", "OF-TOMORROW", "1.OF-TOMORROW"),
        ] {
            let gpu = Gpu::parse(text).unwrap();
            assert_eq!((gpu.to_string(), gpu.as_tag()), (shown.to_owned(), tag.to_owned()));
            assert_eq!(Gpu::from_tag(tag), Some(gpu));
        }
        for text in ["", ":2", "h100:0", "h100:9", "h100:two", "h 100", "h100:1:1", "a_b"] {
            assert_eq!(Gpu::parse(text), None, "{text}");
        }
        for tag in ["", "T4", "0.T4", "1.", "x.T4"] {
            assert_eq!(Gpu::from_tag(tag), None, "{tag}");
        }
    }

    #[test]
    fn a_tag_holds_as_many_regions_as_there_is_room_for() {
        let machine = |regions: &[&str]| Machine {
            gpu: None,
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
        };
        assert_eq!(machine(&[]).regions_tag(), None);
        let two = machine(&["us-east", "eu"]);
        assert_eq!(two.regions_tag().as_deref(), Some("us-east.eu"));
        assert_eq!(Machine::regions_of_tag("us-east.eu"), two.regions);
        let many = machine(&["ap-northeast"; 9]).regions_tag().unwrap();
        assert_eq!(many.len(), 51, "four of twelve characters, and three dots");
    }
}

//! Sizes such as `512`, `"512mb"` or `"1 GB"` (process-groups-and-deploy.md 1.3, 1.7.7).

/// The unit of a field, and what its suffixes count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Memory: a bare number is MiB, suffixes are powers of 1024.
    MemoryMb,
    /// A volume: a bare number is GB, suffixes are powers of 1000.
    VolumeGb,
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid size '{0}': write a number and a unit, such as 512mb or 2gb")]
pub struct InvalidSize(pub String);

/// Returns a size in the field's own unit, cut to a whole number.
pub fn parse(text: &str, unit: Unit) -> Result<i64, InvalidSize> {
    let invalid = || InvalidSize(text.chars().take(40).collect());
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(whole);
    }
    let base: f64 = match unit {
        Unit::MemoryMb => 1024.0,
        Unit::VolumeGb => 1000.0,
    };
    let last = text.rfind(|c: char| c.is_ascii_digit() || ". ".contains(c));
    let last = last.ok_or_else(invalid)?;
    // One space may stand between the number and the unit.
    let (number, suffix) = (&text[..=last], text[last + 1..].to_lowercase());
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    if number < 0.0 {
        return Err(invalid());
    }
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    in_unit(number * base.powi(power), base, unit).ok_or_else(invalid)
}

/// Returns a number of bytes in the field's unit, cut to a whole number.
fn in_unit(bytes: f64, base: f64, unit: Unit) -> Option<i64> {
    let own = match unit {
        Unit::MemoryMb => 2,
        Unit::VolumeGb => 3,
    };
    crate::raw::whole((bytes.floor() / base.powi(own)).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_fly_reads_them() {
        for (text, memory, volume) in [
            ("512", 512, 512),
            ("512mb", 512, 0),
            ("1GB", 1024, 1),
            ("1 gib", 1024, 1),
            ("1.5g", 1536, 1),
            ("15Mb", 15, 0),
            ("-256", -256, -256),
            ("1048576.0", 1, 0),
            ("1e1gb", 10240, 10),
        ] {
            assert_eq!(parse(text, Unit::MemoryMb), Ok(memory), "{text}");
            assert_eq!(parse(text, Unit::VolumeGb), Ok(volume), "{text}");
        }
        for bad in [
            "",
            "big",
            "1eb",
            "1gi",
            "-5gb",
            "1  gb",
            "gb",
            "1.2.3g",
            "9999999999p",
        ] {
            assert!(parse(bad, Unit::MemoryMb).is_err(), "{bad}");
        }
    }
}

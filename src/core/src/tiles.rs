//! The tiles that a log's hashes are kept and published in (C2SP tlog-tiles): 256 hashes of 32 bytes each.

use std::collections::BTreeMap;
use std::fmt;

use crate::merkle::{Hash, root_of};

/// Hashes in a full tile: one of level 0 has leaves, one of level `n` the roots of 256 tiles of level `n - 1`.
pub const WIDTH: usize = 256;
/// Levels of the tree in one of tiles.
const HEIGHT: u32 = 8;
/// The highest level of a tile that any tree has.
const TOP: u8 = 7;

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Its level, 0 for leaves.
    pub level: u8,
    /// Its place in the level.
    pub index: u64,
}

impl Tile {
    /// How many hashes it has in a tree of this size.
    pub fn width(self, size: u64) -> usize {
        let hashes = size.checked_shr(HEIGHT * u32::from(self.level)).unwrap_or_default();
        let here = self.index.checked_mul(WIDTH as u64).map_or(0, |first| hashes.saturating_sub(first));
        usize::try_from(here.min(WIDTH as u64)).unwrap_or(WIDTH)
    }

    /// Every tile of level 0 in a tree of this size, in order, with its width.
    pub fn of_leaves(size: u64) -> impl Iterator<Item = (Self, usize)> {
        let tiles = (0..size.div_ceil(WIDTH as u64)).map(|index| Self { level: 0, index });
        tiles.map(move |tile| (tile, tile.width(size)))
    }

    /// Its path below the log's: `tile/LEVEL/INDEX`, and `.p/WIDTH` where it is not full.
    pub fn path(self, width: usize) -> String {
        let partial = if width < WIDTH { format!(".p/{width}") } else { String::new() };
        format!("tile/{self}{partial}")
    }

    /// Reads what is behind `tile/` in a path: the tile, and how many hashes of it.
    pub fn parse(path: &str) -> Option<(Self, usize)> {
        let (level, rest) = path.split_once('/')?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|width| (1..WIDTH).contains(width))?),
            None => (rest, WIDTH),
        };
        let mut number: u64 = 0;
        for part in index.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { level: level.parse().ok().filter(|level| *level <= TOP)?, index: number };
        // One path for each: no further zeros, and `x` before all parts but the last.
        (tile.path(width).strip_prefix("tile/") == Some(path)).then_some((tile, width))
    }
}

/// `LEVEL/INDEX`, the index in groups of three digits, each but the last with an `x` before it.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.index;
        let mut index = format!("{:03}", rest % 1000);
        while rest >= 1000 {
            rest /= 1000;
            index = format!("x{:03}/{index}", rest % 1000);
        }
        write!(f, "{}/{index}", self.level)
    }
}

/// A perfect subtree: of `2^level` leaves, the `index`-th of its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its height.
    pub level: u32,
    /// Its place in the level.
    pub index: u64,
}

impl Node {
    /// The tile that its root follows from, and where in it the hashes below it begin.
    fn place(self) -> (Tile, usize, usize) {
        let (tile_level, height) = (self.level / HEIGHT, self.level % HEIGHT);
        let first = self.index << height;
        let tile = Tile { level: u8::try_from(tile_level).unwrap_or(TOP), index: first >> HEIGHT };
        (tile, usize::try_from(first & (WIDTH as u64 - 1)).unwrap_or_default(), 1 << height)
    }

    /// The tile that its root follows from.
    pub fn tile(self) -> Tile {
        self.place().0
    }

    /// Its root, where the tile is among these and has it.
    pub fn root(self, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<Hash> {
        let (tile, first, count) = self.place();
        Some(root_of(tiles.get(&tile)?.get(first..first + count)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_standards() {
        let tile = |level, index| Tile { level, index };
        for (tile, width, path) in [
            (tile(0, 0), 256, "tile/0/000"),
            (tile(0, 0), 17, "tile/0/000.p/17"),
            (tile(3, 999), 256, "tile/3/999"),
            (tile(0, 1000), 256, "tile/0/x001/000"),
            (tile(0, 1_234_067), 256, "tile/0/x001/x234/067"),
            (tile(1, 1_234_067), 8, "tile/1/x001/x234/067.p/8"),
        ] {
            assert_eq!(tile.path(width), path);
            assert_eq!(Tile::parse(path.strip_prefix("tile/").unwrap()), Some((tile, width)));
        }
        for bad in [
            "",
            "0",
            "0/",
            "0/0",
            "0/0000",
            "0/x000/001",
            "0/001/002",
            "0/x001",
            "8/000",
            "00/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/+01",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tile_is_as_wide_as_the_tree_has_it() {
        let width = |level, index, size| Tile { level, index }.width(size);
        assert_eq!([width(0, 0, 0), width(0, 0, 5), width(0, 0, 256), width(0, 1, 256)], [0, 5, 256, 0]);
        assert_eq!(
            [width(1, 0, 255), width(1, 0, 256), width(1, 0, 70_000), width(2, 0, 70_000)],
            [0, 1, 256, 1]
        );
        assert_eq!([width(7, 0, u64::MAX), width(7, u64::MAX, u64::MAX)], [255, 0]);
        let all: Vec<_> = Tile::of_leaves(513).map(|(tile, width)| (tile.index, width)).collect();
        assert_eq!(all, [(0, 256), (1, 256), (2, 1)]);
    }
}

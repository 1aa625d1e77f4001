//! CBOR as a tree, written back right or wrong in one chosen place.

/// One data item of the protocol's CBOR.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Tree>),
    Map(Vec<(u64, Tree)>),
    Bool(bool),
}

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// The head of an item takes more bytes than it needs; the number says how many steps more
    LongHead(u8),
    /// An array, map or string of indefinite length (RFC 8949 §3.2)
    Indefinite,
    /// The first two keys of a map, the later one first
    SwappedKeys,
    /// The first key of a map twice
    RepeatedKey,
    /// A value in place of the item: null, undefined, a float, a negative integer, a tag, a break
    Foreign(&'static [u8]),
}

pub(crate) const FOREIGN: [&[u8]; 7] =
    [&[0xf6], &[0xf7], &[0xf9, 0x3c, 0x00], &[0x20], &[0xc1, 0x00], &[0xff], &[0xf8, 0x20]];

impl Tree {
    /// Reads what is known to be right.
    pub(crate) fn parse(bytes: &[u8]) -> Tree {
        let (tree, rest) = parse(bytes);
        assert!(rest.is_empty(), "a body is one item");
        tree
    }

    /// How many items there are, this one included; keys of maps are none.
    pub(crate) fn items(&self) -> usize {
        1 + match self {
            Tree::Array(items) => items.iter().map(Tree::items).sum(),
            Tree::Map(pairs) => pairs.iter().map(|(_, value)| value.items()).sum(),
            _ => 0,
        }
    }

    /// Puts another item at `place` (in order of appearance).
    pub(crate) fn replace(&mut self, place: usize, other: Tree) {
        let mut left = place;
        *self.at(&mut left).expect("a place within the tree") = other;
    }

    fn at(&mut self, left: &mut usize) -> Option<&mut Tree> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Tree::Array(items) => items.iter_mut().find_map(|item| item.at(left)),
            Tree::Map(pairs) => pairs.iter_mut().find_map(|(_, value)| value.at(left)),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer { out: Vec::new(), place: usize::MAX, wrong: Wrong::Indefinite, done: false };
        writer.item(self);
        writer.out
    }

    /// The first bytes of an array or map: its type and length.
    pub(crate) fn head(&self) -> Vec<u8> {
        let len = self.encode().len();
        let inner: usize = match self {
            Tree::Array(items) => items.iter().map(|item| item.encode().len()).sum(),
            Tree::Map(pairs) => {
                pairs.iter().map(|(key, value)| Tree::Uint(*key).encode().len() + value.encode().len()).sum()
            }
            _ => 0,
        };
        self.encode()[..len - inner].to_vec()
    }

    /// Written with the item at `place` (in order of appearance) wrong; none if that can not be done to it.
    pub(crate) fn encode_wrong(&self, place: usize, wrong: Wrong) -> Option<Vec<u8>> {
        let mut writer = Writer { out: Vec::new(), place, wrong, done: false };
        writer.item(self);
        writer.done.then_some(writer.out)
    }
}

struct Writer {
    out: Vec<u8>,
    /// Items still to go before the wrong one
    place: usize,
    wrong: Wrong,
    done: bool,
}

impl Writer {
    fn item(&mut self, tree: &Tree) {
        let wrong = (self.place == 0).then_some(self.wrong);
        self.place = self.place.wrapping_sub(1);
        if let Some(Wrong::Foreign(bytes)) = wrong {
            self.out.extend_from_slice(bytes);
            self.done = true;
            return;
        }
        match tree {
            Tree::Uint(value) => self.head(0, *value, wrong),
            Tree::Bool(value) => self.out.push(if *value { 0xf5 } else { 0xf4 }),
            Tree::Bytes(bytes) => self.string(2, bytes, wrong),
            Tree::Text(text) => self.string(3, text.as_bytes(), wrong),
            Tree::Array(items) => {
                self.head(4, items.len() as u64, wrong);
                items.iter().for_each(|item| self.item(item));
                self.end(wrong);
            }
            Tree::Map(pairs) => {
                let mut pairs = pairs.clone();
                match wrong {
                    Some(Wrong::SwappedKeys) if pairs.len() > 1 => {
                        pairs.swap(0, 1);
                        self.done = true;
                    }
                    Some(Wrong::RepeatedKey) if !pairs.is_empty() => {
                        pairs.insert(1, pairs[0].clone());
                        self.done = true;
                    }
                    _ => {}
                }
                self.head(5, pairs.len() as u64, wrong);
                for (key, value) in &pairs {
                    self.head(0, *key, None);
                    self.item(value);
                }
                self.end(wrong);
            }
        }
    }

    fn string(&mut self, major: u8, bytes: &[u8], wrong: Option<Wrong>) {
        self.head(major, bytes.len() as u64, wrong);
        if wrong == Some(Wrong::Indefinite) {
            self.head(major, bytes.len() as u64, None); // as one chunk
        }
        self.out.extend_from_slice(bytes);
        self.end(wrong);
    }

    fn head(&mut self, major: u8, value: u64, wrong: Option<Wrong>) {
        let least = match value {
            0..24 => 0,
            24..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 3,
            _ => 4,
        };
        let size = match wrong {
            Some(Wrong::LongHead(more)) if least + more <= 4 && more > 0 => {
                self.done = true;
                least + more
            }
            Some(Wrong::Indefinite) if major > 0 => {
                self.done = true;
                self.out.push(major << 5 | 31);
                return;
            }
            _ => least,
        };
        let bytes = value.to_be_bytes();
        match size {
            0 => self.out.push(major << 5 | value as u8),
            size => {
                self.out.push(major << 5 | (23 + size));
                self.out.extend_from_slice(&bytes[8 - (1 << (size - 1))..]);
            }
        }
    }

    fn end(&mut self, wrong: Option<Wrong>) {
        if wrong == Some(Wrong::Indefinite) {
            self.out.push(0xff);
        }
    }
}

fn parse(bytes: &[u8]) -> (Tree, &[u8]) {
    let (first, rest) = bytes.split_first().unwrap();
    let size = match first & 0x1f {
        0..24 => 0,
        more => 1 << (more - 24),
    };
    let (argument, rest) = if first >> 5 == 7 { (&[][..], rest) } else { rest.split_at(size) };
    let value = match size {
        0 => u64::from(first & 0x1f),
        _ => argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    };
    let len = value as usize;
    match first >> 5 {
        0 => (Tree::Uint(value), rest),
        2 => (Tree::Bytes(rest[..len].to_vec()), &rest[len..]),
        3 => (Tree::Text(String::from_utf8(rest[..len].to_vec()).unwrap()), &rest[len..]),
        4 => {
            let mut rest = rest;
            let items = (0..len).map(|_| take(&mut rest)).collect();
            (Tree::Array(items), rest)
        }
        5 => {
            let mut rest = rest;
            let pair = |_| match take(&mut rest) {
                Tree::Uint(key) => (key, take(&mut rest)),
                other => panic!("{other:?} is no key"),
            };
            let pairs = (0..len).map(pair).collect();
            (Tree::Map(pairs), rest)
        }
        7 => (Tree::Bool(*first == 0xf5), rest),
        other => panic!("major type {other}"),
    }
}

fn take(rest: &mut &[u8]) -> Tree {
    let (tree, after) = parse(rest);
    *rest = after;
    tree
}

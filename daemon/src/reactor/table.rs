//! A table with places that are used again, each time under another generation, so that a late answer never meets
//! a stranger.

/// Slot in the low half, generation in the high half.
pub(crate) type Tag = u64;

struct Place<T> {
    generation: u32,
    item: Option<T>,
}

/// Items by tag.
pub(crate) struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { places: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// Puts in what `make` builds, who is told the tag.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Tag) -> T) -> Tag {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, item: None });
            u32::try_from(self.places.len() - 1).expect("limits keep a table far below 4 billion places")
        });
        let place = &mut self.places[slot as usize];
        let tag = Tag::from(place.generation) << 32 | Tag::from(slot);
        place.item = Some(make(tag));
        self.len += 1;
        tag
    }

    /// Takes out; none when the tag is of an earlier generation.
    pub(crate) fn remove(&mut self, tag: Tag) -> Option<T> {
        let place = self.places.get_mut(tag as u32 as usize)?;
        if place.generation != (tag >> 32) as u32 {
            return None;
        }
        let item = place.item.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(tag as u32);
        self.len -= 1;
        Some(item)
    }

    /// Whether the tag's item is there.
    pub(crate) fn contains(&self, tag: Tag) -> bool {
        let place = self.places.get(tag as u32 as usize);
        place.is_some_and(|place| place.generation == (tag >> 32) as u32 && place.item.is_some())
    }

    /// All items with their tags.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tag, &T)> {
        self.places.iter().enumerate().filter_map(|(slot, place)| {
            let tag = Tag::from(place.generation) << 32 | slot as Tag;
            place.item.as_ref().map(|item| (tag, item))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_an_earlier_generation_finds_nothing() {
        let mut table = Table::default();
        let first = table.insert_with(|_| 'a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert_with(|_| 'b');
        assert_ne!(first, second);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.iter().next(), Some((second, &'b')));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn places_are_used_again() {
        let mut table = Table::default();
        for round in 0..1000 {
            let tags: Vec<_> = (0..3).map(|i| table.insert_with(|_| round * 3 + i)).collect();
            for tag in tags {
                assert!(table.remove(tag).is_some());
            }
        }
        assert!(table.is_empty());
        assert_eq!(table.places.len(), 3);
    }
}

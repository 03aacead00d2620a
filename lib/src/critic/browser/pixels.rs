//! A screenshot, asked whether there is anything to see at a place.
//!
//! Whatever hides an element (a cover, transparent text, a filter, a mask), what is left of it is one colour.

use super::rendered::Item;

/// Colours that differ by less in every channel are one to the eye. Streamlit's own fields (#f0f2f6 on white) differ by 15.
const DIFFERENT: u8 = 12;
/// Pixels of another colour that make something to see; a point is about as many.
const ENOUGH: usize = 8;
/// Points of a place from which its own colour is taken, in each direction.
const SAMPLES: usize = 9;

/// Pixels, row by row.
pub(super) struct Picture {
    width: usize,
    height: usize,
    channels: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// Reads a PNG of 8 bits with or without transparency, as Chromium makes them.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().ok()?;
        let mut bytes = vec![0; reader.output_buffer_size()?];
        let info = reader.next_frame(&mut bytes).ok()?;
        let channels = match (info.color_type, info.bit_depth) {
            (png::ColorType::Rgb, png::BitDepth::Eight) => 3,
            (png::ColorType::Rgba, png::BitDepth::Eight) => 4,
            _ => return None,
        };
        let (width, height) = (usize::try_from(info.width).ok()?, usize::try_from(info.height).ok()?);
        Some(Self { width, height, channels, bytes })
    }

    /// Whether something can be seen at each of an item's places.
    pub fn shows(&self, item: &Item) -> bool {
        item.boxes.iter().all(|place| self.varies(*place))
    }

    /// Whether a place is of more than one colour; so is one that lies outside the picture, of which nothing is known.
    fn varies(&self, [left, top, width, height]: [f64; 4]) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let within = |at: f64, most: usize| at.clamp(0.0, most as f64) as usize;
        let (x, right) = (within(left.ceil(), self.width), within((left + width).floor(), self.width));
        let (y, bottom) = (within(top.ceil(), self.height), within((top + height).floor(), self.height));
        if right <= x || bottom <= y {
            return true;
        }
        let ground = self.ground(x, y, right, bottom);
        let pixels = (y..bottom).flat_map(|y| (x..right).map(move |x| (x, y)));
        pixels.filter(|(x, y)| differ(self.at(*x, *y), ground)).take(ENOUGH).count() == ENOUGH
    }

    /// The colour that most of a place has.
    fn ground(&self, x: usize, y: usize, right: usize, bottom: usize) -> [u8; 3] {
        let step = |from: usize, to: usize, n: usize| from + (to - from - 1) * n / (SAMPLES - 1);
        let points = (0..SAMPLES * SAMPLES).map(|n| (n % SAMPLES, n / SAMPLES));
        let colours: Vec<[u8; 3]> =
            points.map(|(i, j)| self.at(step(x, right, i), step(y, bottom, j))).collect();
        let alike = |colour: &&[u8; 3]| colours.iter().filter(|other| !differ(**colour, **other)).count();
        colours.iter().max_by_key(alike).copied().unwrap_or_default()
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * self.channels;
        [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2]]
    }
}

fn differ(one: [u8; 3], other: [u8; 3]) -> bool {
    one.iter().zip(other).any(|(a, b)| a.abs_diff(b) >= DIFFERENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// White, with the given marks: left, top, width, height, shade of grey.
    fn picture(marks: &[(usize, usize, usize, usize, u8)]) -> Vec<u8> {
        let (width, height) = (60, 40);
        let mut pixels = vec![255; width * height * 3];
        for (left, top, w, h, shade) in marks {
            for y in *top..top + h {
                pixels[3 * (y * width + left)..3 * (y * width + left + w)].fill(*shade);
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 60, 40);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        bytes
    }

    #[track_caller]
    fn check(marks: &[(usize, usize, usize, usize, u8)], boxes: &[[f64; 4]], expected: bool) {
        let picture = Picture::read(&picture(marks)).unwrap();
        let item = Item { boxes: boxes.to_vec(), ..Item::default() };
        assert_eq!(picture.shows(&item), expected);
    }

    #[test]
    fn what_is_of_one_colour_is_not_seen() {
        let text = (10, 10, 6, 2, 0);
        check(&[text], &[[5.0, 5.0, 20.0, 10.0]], true);
        check(&[], &[[5.0, 5.0, 20.0, 10.0]], false);
        check(&[(10, 10, 6, 2, 250)], &[[5.0, 5.0, 20.0, 10.0]], false);
        check(&[(10, 10, 6, 2, 0xc4)], &[[5.0, 5.0, 20.0, 10.0]], true);
        // Text of which there is most is text all the same.
        check(&[(5, 5, 20, 9, 0)], &[[5.0, 5.0, 20.0, 10.0]], true);
        // Every part has to show something.
        check(&[text], &[[5.0, 5.0, 20.0, 10.0], [40.0, 5.0, 10.0, 10.0]], false);
        // Nothing is known of what lies outside.
        check(&[], &[[80.0, 5.0, 20.0, 10.0]], true);
        check(&[], &[[-50.0, -50.0, 20.0, 10.0]], true);
        check(&[], &[], true);
    }

    #[test]
    fn what_is_no_picture_is_not_read() {
        assert!(Picture::read(b"no").is_none());
        let whole = picture(&[]);
        assert!(Picture::read(&whole[..whole.len() / 2]).is_none());
    }

    proptest! {
        #[test]
        fn any_place_is_answered(left in any::<f64>(), top in any::<f64>(), width in any::<f64>(), height in any::<f64>()) {
            let picture = Picture::read(&picture(&[])).unwrap();
            picture.varies([left, top, width, height]);
        }
    }
}

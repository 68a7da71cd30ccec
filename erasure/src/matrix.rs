//! Small matrices over GF(2^8): which combination of the pieces at hand gives a piece that is missing.

use reed_solomon_erasure::galois_8::{div, mul};

/// A square matrix was singular. Cannot happen for rows of one coding matrix, any k of which are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Singular;

/// Inverts a square matrix by Gauss-Jordan elimination. In GF(2^8) addition and subtraction are exclusive or.
pub(crate) fn invert(mut rows: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Singular> {
    let size = rows.len();
    for (i, row) in rows.iter_mut().enumerate() {
        row.extend((0..size).map(|j| u8::from(i == j)));
    }
    for column in 0..size {
        let pivot = (column..size).find(|&row| rows[row][column] != 0).ok_or(Singular)?;
        rows.swap(column, pivot);
        let lead = rows[column][column];
        rows[column].iter_mut().for_each(|x| *x = div(*x, lead));
        let pivot_row = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column];
            if factor != 0 {
                row.iter_mut().zip(&pivot_row).for_each(|(x, p)| *x ^= mul(factor, *p));
            }
        }
    }
    Ok(rows.into_iter().map(|row| row[size..].to_vec()).collect())
}

/// `vector` (a row) times `matrix`.
pub(crate) fn row_times(vector: &[u8], matrix: &[Vec<u8>]) -> Vec<u8> {
    let columns = matrix.first().map_or(0, Vec::len);
    (0..columns).map(|c| vector.iter().zip(matrix).fold(0, |sum, (v, row)| sum ^ mul(*v, row[c]))).collect()
}

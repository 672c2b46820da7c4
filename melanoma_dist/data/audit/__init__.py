"""What a data set holds, and the proof that nothing in it leaks: `data audit`."""

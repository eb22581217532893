"""What a network looks at: attention maps and their Jaccard index, principal components, similarities."""

"""What every room uses: errors, text, files, images, pages, the mini set. Imports nothing of the other rooms."""

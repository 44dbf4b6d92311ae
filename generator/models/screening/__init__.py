"""What a bundle knows of its source that decoded images can be held against: its classes, and its images."""

"""From pictures to model inputs and back: loading, face detection, alignment, regions and paste-back."""

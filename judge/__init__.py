"""The jury: a ResNet that tells paintings from photographs, and the score it gives."""

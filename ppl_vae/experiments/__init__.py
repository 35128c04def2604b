"""The claims of the exercise that this project grew out of, each as an experiment."""

"""The functions of operators, a file for each subject. Importing a file registers its operators."""

"""One of everything that Streamlit draws, with good labels: what axe finds here is the framework's own doing."""

import pandas as pd
import streamlit as st

st.set_page_config(page_title="Gallery", layout="wide")
table = pd.DataFrame({"month": ["May", "June", "July"], "sales": [3, 5, 4], "cost": [2, 2, 3]})

st.title("Gallery")
st.caption("A caption says a little more.")
st.markdown("Plain text with **bold** words, `code` and a [link to the top](#gallery).")
st.text("Text as it is written.")

st.header("Data")
st.metric("Sales", "12", "2")
st.dataframe(table)
st.table(table)
st.data_editor(table, key="editor")
st.json({"a": 1})
st.line_chart(table, x="month", y="sales")
st.bar_chart(table, x="month", y="sales")
st.area_chart(table, x="month", y="sales")
st.scatter_chart(table, x="month", y="sales")
st.code("print('a line of code')", language="python")
st.latex("a + b")
st.progress(0.4, text="Loading")

st.header("Controls")
st.button("Send")
st.download_button("Save the table", table.to_csv(), "table.csv")
st.link_button("Open the manual", "https://example.org/manual")
st.checkbox("Agree")
st.toggle("Dark mode")
st.radio("Size", ["small", "large"])
st.selectbox("Town", ["Bern", "Rome"])
st.multiselect("Tags", ["red", "blue"], default=["red"])
st.slider("Volume", 0, 10, 3)
st.slider("Range", 0, 10, (2, 8))
st.select_slider("Grade", ["low", "middle", "high"])
st.text_input("Name")
st.text_area("Message")
st.number_input("Amount", 0, 10)
st.date_input("Day", value=None)
st.time_input("Hour", value=None)
st.color_picker("Colour", "#336699")
st.pills("Topics", ["news", "sport"])
st.segmented_control("View", ["list", "grid"])
st.feedback("stars")
st.file_uploader("Table to read", type="csv")

st.header("Containers")
left, right = st.columns(2)
left.write("On the left.")
right.write("On the right.")
with st.expander("More", expanded=True):
    st.write("Inside the expander.")
with st.form("contact"):
    st.text_input("Email")
    st.form_submit_button("Subscribe")
first, second = st.tabs(["First", "Second"])
first.write("On the first tab.")
second.write("On the second tab.")
with st.popover("Options"):
    st.checkbox("Compact")
with st.chat_message("user"):
    st.write("Good morning.")
with st.container(border=True):
    st.write("In a frame.")
with st.status("Reading", expanded=False):
    st.write("Done.")

st.header("Messages")
st.success("It is saved.")
st.info("It takes a minute.")
st.warning("It is nearly full.")
st.error("It did not work.")
st.toast("A message from the side.", duration="infinite")
st.badge("New")
st.graphviz_chart("digraph { a -> b }")
st.map(pd.DataFrame({"lat": [46.9], "lon": [7.4]}))
st.page_link("https://example.org", label="Elsewhere")

with st.sidebar:
    st.header("Filters")
    st.selectbox("Year", ["2025", "2026"])
